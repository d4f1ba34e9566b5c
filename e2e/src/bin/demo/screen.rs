//! Where the demo prints: a terminal with a part that is drawn again and again, or a file that only grows.

use std::io::{IsTerminal as _, Stdout, Write as _, stdout};
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::line::{Line, Style};

/// Where no terminal says how wide it is.
const WIDTH: usize = 100;
/// Wider lines are hard to read.
const WIDEST: usize = 120;
/// Between two pictures of something that only takes time.
const TICK: Duration = Duration::from_millis(250);

/// The standard output.
#[derive(Debug)]
pub struct Screen {
    out: Stdout,
    terminal: bool,
    color: bool,
    /// How many lines of the live part are on the terminal now.
    drawn: usize,
}

impl Screen {
    /// The standard output as it is: a terminal or not, with colors unless NO_COLOR says otherwise.
    pub fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = stdout().is_terminal() && !dumb;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { out: stdout(), terminal, color: terminal && !no_color, drawn: 0 }
    }

    /// Whether a live part can be shown.
    pub fn is_live(&self) -> bool {
        self.terminal
    }

    /// How many columns there are.
    pub fn width(&self) -> usize {
        self.size().0.min(WIDEST)
    }

    /// Prints lines that stay; the live part is gone until it is drawn again.
    pub fn print(&mut self, lines: &[Line]) -> Result<()> {
        let text: String = lines.iter().map(|line| line.painted(self.color) + "\n").collect();
        self.replace(&text, 0)
    }

    /// Prints a line that stays.
    pub fn line(&mut self, line: Line) -> Result<()> {
        self.print(&[line])
    }

    /// Draws the live part in place of the last one. Does nothing where it could not be drawn over later.
    pub fn live(&mut self, lines: &[Line]) -> Result<()> {
        if !self.terminal {
            return Ok(());
        }
        let (width, height) = self.size();
        // What has scrolled away cannot be drawn over.
        let lines = &lines[..lines.len().min(height.saturating_sub(1))];
        let text: String =
            lines.iter().map(|line| line.clipped(width).painted(self.color) + "\x1b[K\n").collect();
        self.replace(&text, lines.len())
    }

    /// Shows that something is going on until it is over.
    pub async fn during<T>(&mut self, what: &str, work: impl Future<Output = T>) -> Result<T> {
        let begun = Instant::now();
        let mut work = pin!(work);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                outcome = &mut work => return Ok(outcome),
                _ = tick.tick() => {
                    let time = format!(" … {} s", begun.elapsed().as_secs());
                    self.live(&[Line::plain(what).and(Style::Faint, time)])?;
                }
            }
        }
    }

    /// Leaves the live part where it is, for good.
    pub fn keep(&mut self) {
        self.drawn = 0;
    }

    /// In one write, so that nobody sees it half done.
    fn replace(&mut self, text: &str, drawn: usize) -> Result<()> {
        let up = if self.drawn > 0 { format!("\x1b[{}A\r", self.drawn) } else { String::new() };
        let clear = if self.drawn > 0 && drawn == 0 { "\x1b[J" } else { "" };
        let below = if drawn > 0 { "\x1b[J" } else { "" };
        self.drawn = drawn;
        self.out.write_all(format!("{up}{clear}{text}{below}").as_bytes())?;
        self.out.flush()?;
        Ok(())
    }

    /// Columns and rows.
    fn size(&self) -> (usize, usize) {
        let size =
            rustix::termios::tcgetwinsize(&self.out).ok().filter(|size| self.terminal && size.ws_col > 0);
        size.map_or((WIDTH, usize::MAX), |size| (size.ws_col.into(), size.ws_row.into()))
    }
}
