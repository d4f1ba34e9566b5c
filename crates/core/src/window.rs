//! Maintenance windows: when something new may start.
//!
//! A window is given in the time of a place, as people say it: from 22:00 to 05:00 in Berlin. A day on which a clock jumps
//! has a window that is an hour shorter or longer, like the night itself.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// How many days ahead an opening is looked for: every weekday comes within eight days, and one more for a day that has no
/// such window because a clock jumped over it.
const DAYS_AHEAD: i64 = 9;

/// A time of the week in which something new may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days on which it opens; every day when there are none.
    pub days: Vec<Weekday>,
    /// When it opens.
    pub start: Time,
    /// When it closes; on the next day if this is not after `start`.
    pub end: Time,
    /// Where that is the time.
    pub time_zone: TimeZone,
}

/// Whether something new may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It may: there are no windows, or one is open.
    Open,
    /// All are closed, and the next one opens at this time.
    Closed(Timestamp),
}

/// Whether one of the windows is open. Without any, everything may start at any time.
pub fn opening(windows: &[Window], now: Timestamp) -> Opening {
    let times = || windows.iter().flat_map(|window| window.times(now));
    if windows.is_empty() || times().any(|(opens, closes)| opens <= now && now < closes) {
        return Opening::Open;
    }
    Opening::Closed(
        times().map(|(opens, _)| opens).filter(|opens| *opens > now).min().unwrap_or(Timestamp::MAX),
    )
}

impl Window {
    /// When it opens and closes, from the day before `now` on: that one may still be open.
    fn times(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let today = now.to_zoned(self.time_zone.clone()).date();
        (-1..=DAYS_AHEAD)
            .filter_map(move |ahead| today.checked_add(ahead.days()).ok())
            .filter(|day| self.days.is_empty() || self.days.contains(&day.weekday()))
            .filter_map(|day| self.on(day))
    }

    /// When the window of a day opens and closes. A time that a clock jumps over is taken as much later, and of one that
    /// comes twice the first.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        let last = if self.end > self.start { day } else { day.tomorrow().ok()? };
        let at = |day: Date, time: Time| self.time_zone.to_timestamp(day.to_datetime(time)).ok();
        let (opens, closes) = (at(day, self.start)?, at(last, self.end)?);
        (opens < closes).then_some((opens, closes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[Weekday], start: &str, end: &str, zone: &str) -> Window {
        Window {
            days: days.to_vec(),
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
            time_zone: TimeZone::get(zone).unwrap(),
        }
    }

    fn at(windows: &[Window], now: &str) -> String {
        match opening(windows, now.parse().unwrap()) {
            Opening::Open => "open".to_owned(),
            Opening::Closed(next) => next.to_string(),
        }
    }

    #[test]
    fn without_windows_it_is_always_open() {
        assert_eq!(at(&[], "2026-11-21T12:00:00Z"), "open");
    }

    #[test]
    fn it_opens_at_its_start_and_is_closed_at_its_end() {
        let day = [window(&[], "09:00", "17:00", "UTC")];
        assert_eq!(at(&day, "2026-11-21T08:59:59Z"), "2026-11-21T09:00:00Z");
        assert_eq!(at(&day, "2026-11-21T09:00:00Z"), "open");
        assert_eq!(at(&day, "2026-11-21T16:59:59.9Z"), "open");
        assert_eq!(at(&day, "2026-11-21T17:00:00Z"), "2026-11-22T09:00:00Z");
    }

    #[test]
    fn across_midnight_it_belongs_to_the_day_on_which_it_opens() {
        // 2026-11-20 is a Friday. Berlin is an hour ahead in winter.
        let night = [window(&[Weekday::Friday], "22:00", "05:00", "Europe/Berlin")];
        assert_eq!(at(&night, "2026-11-20T20:59:00Z"), "2026-11-20T21:00:00Z");
        assert_eq!(at(&night, "2026-11-21T03:59:00Z"), "open", "Saturday, before five in the morning");
        assert_eq!(at(&night, "2026-11-21T04:00:00Z"), "2026-11-27T21:00:00Z", "a week later");
        assert_eq!(at(&night, "2026-11-20T03:00:00Z"), "2026-11-20T21:00:00Z", "Thursday's night is none");
    }

    #[test]
    fn equal_times_are_a_whole_day() {
        let sunday = [window(&[Weekday::Sunday], "00:00", "00:00", "UTC")];
        assert_eq!(at(&sunday, "2026-11-22T00:00:00Z"), "open");
        assert_eq!(at(&sunday, "2026-11-22T23:59:59Z"), "open");
        assert_eq!(at(&sunday, "2026-11-23T00:00:00Z"), "2026-11-29T00:00:00Z");
    }

    #[test]
    fn a_clock_that_jumps_forward_makes_a_night_shorter() {
        // Berlin, 2026-03-29: at 02:00 it is 03:00.
        let night = [window(&[], "01:00", "04:00", "Europe/Berlin")];
        assert_eq!(at(&night, "2026-03-29T00:00:00Z"), "open");
        assert_eq!(at(&night, "2026-03-29T01:59:59Z"), "open");
        assert_eq!(at(&night, "2026-03-29T02:00:00Z"), "2026-03-29T23:00:00Z", "next day, summer time");
        let skipped = [window(&[], "02:15", "02:45", "Europe/Berlin")];
        assert_eq!(at(&skipped, "2026-03-29T01:20:00Z"), "open", "a quarter past three takes its place");
    }

    #[test]
    fn a_clock_that_jumps_back_makes_a_night_longer() {
        // Berlin, 2026-10-25: at 03:00 it is 02:00 again.
        let night = [window(&[], "01:00", "04:00", "Europe/Berlin")];
        assert_eq!(at(&night, "2026-10-24T23:00:00Z"), "open");
        assert_eq!(at(&night, "2026-10-25T02:59:59Z"), "open", "four hours");
        assert_eq!(at(&night, "2026-10-25T03:00:00Z"), "2026-10-26T00:00:00Z");
    }

    #[test]
    fn of_several_windows_the_first_to_open_counts() {
        let windows = [
            window(&[Weekday::Monday], "10:00", "12:00", "America/New_York"),
            window(&[Weekday::Sunday], "20:00", "21:00", "Asia/Tokyo"),
        ];
        assert_eq!(at(&windows, "2026-11-21T12:00:00Z"), "2026-11-22T11:00:00Z");
        assert_eq!(at(&windows, "2026-11-22T12:00:00Z"), "2026-11-23T15:00:00Z");
    }
}
