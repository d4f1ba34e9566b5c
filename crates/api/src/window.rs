//! Maintenance windows: from text to times of a place.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use meshupgrade_core::window::Window;

use crate::FieldError;
use crate::rules::TIME_ZONE;
use crate::spec::{Day, WindowSpec};

/// The windows of a spec, or what is wrong with them.
pub(crate) fn windows(specs: Option<&[WindowSpec]>) -> Result<Vec<Window>, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut windows = Vec::new();
    for (index, spec) in specs.unwrap_or_default().iter().enumerate() {
        match window(&format!("spec.windows[{index}]"), spec) {
            Ok(window) => windows.push(window),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(windows) } else { Err(errors) }
}

fn window(path: &str, spec: &WindowSpec) -> Result<Window, Vec<FieldError>> {
    let start = time(&spec.start_time).ok_or(("startTime", TIME_MESSAGE));
    let end = time(&spec.end_time).ok_or(("endTime", TIME_MESSAGE));
    let zone = TimeZone::get(&spec.time_zone).map_err(|_| ("timeZone", TIME_ZONE.message));
    match (start, end, zone) {
        (Ok(start), Ok(end), Ok(time_zone)) => Ok(Window { days: days(spec), start, end, time_zone }),
        (start, end, zone) => {
            let wrong = [start.err(), end.err(), zone.err()].into_iter().flatten();
            Err(wrong.map(|(field, message)| FieldError::new(format!("{path}.{field}"), message)).collect())
        }
    }
}

const TIME_MESSAGE: &str = "must be a time of day from 00:00 to 23:59, with two digits each";

/// [`crate::limits::TIME_PATTERN`].
fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hour) || !two_digits(minute) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

fn days(spec: &WindowSpec) -> Vec<Weekday> {
    let day = |day: &Day| match day {
        Day::Monday => Weekday::Monday,
        Day::Tuesday => Weekday::Tuesday,
        Day::Wednesday => Weekday::Wednesday,
        Day::Thursday => Weekday::Thursday,
        Day::Friday => Weekday::Friday,
        Day::Saturday => Weekday::Saturday,
        Day::Sunday => Weekday::Sunday,
    };
    spec.days.iter().flatten().map(day).collect()
}
