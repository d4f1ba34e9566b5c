//! Reading the audit log while it grows: each scenario sees only its own part.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::audit::{Call, Log};

/// A place in the audit log.
#[derive(Clone, Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
}

impl Tail {
    /// The end of the log as it is now: the beginning of a line.
    pub fn at_end(path: &Path) -> Result<Self> {
        let mut tail = Self { path: path.to_owned(), offset: 0 };
        let length = std::fs::metadata(path)?.len();
        // A line may be half written just now: begin with it. The bytes before it may begin within a character.
        tail.offset = length.saturating_sub(1 << 20);
        tail.offset += u64::try_from(tail.bytes()?.len())?;
        Ok(tail)
    }

    /// Whole lines from here to the end of the log, without moving on.
    pub fn read(&self) -> Result<String> {
        Ok(String::from_utf8(self.bytes()?)?)
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        ensure!(length >= self.offset, "the audit log became shorter: it was rotated or cut");
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        bytes.truncate(end);
        Ok(bytes)
    }

    /// Whole lines that came since the last call.
    pub fn take(&mut self) -> Result<String> {
        let text = self.read()?;
        self.offset += u64::try_from(text.len())?;
        Ok(text)
    }
}

/// Follows the writes of one user.
#[derive(Debug)]
pub struct Follower {
    tail: Tail,
    user: String,
    seen: std::collections::VecDeque<Call>,
}

impl Follower {
    /// Follows from here on.
    pub fn new(tail: Tail, user: &str) -> Self {
        Self { tail, user: user.to_owned(), seen: std::collections::VecDeque::new() }
    }

    /// The next write that is neither a lease nor an event; `None` when none comes in time.
    pub async fn next_write(&mut self, within: Duration) -> Result<Option<Call>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(call) = self.seen.pop_front() {
                return Ok(Some(call));
            }
            self.look()?;
            if self.seen.is_empty() {
                if Instant::now() > deadline {
                    return Ok(None);
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    }

    fn look(&mut self) -> Result<()> {
        let text = self.tail.take()?;
        let mine: String =
            text.lines().filter(|line| line.contains(&self.user)).flat_map(|line| [line, "\n"]).collect();
        if mine.is_empty() {
            return Ok(());
        }
        let log = match Log::parse(&mine) {
            Ok(log) => log,
            Err(error) => bail!("{error}"),
        };
        let counts = |call: &Call| {
            call.user == self.user
                && call.is_write()
                && !matches!(call.object.resource.as_str(), "leases" | "events")
        };
        self.seen.extend(log.calls.into_iter().filter(counts));
        Ok(())
    }
}
