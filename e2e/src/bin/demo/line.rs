//! Text with styles: made by the view, painted by the screen.

/// What a piece of text means; the screen knows how that looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Ordinary text.
    Plain,
    /// A title, or what matters most.
    Strong,
    /// Less important.
    Faint,
    /// What a person types.
    Typed,
    /// Done and right.
    Good,
    /// In work.
    Busy,
    /// Going back, or in need of a look.
    Alert,
}

impl Style {
    /// The parameters of its escape sequence; none for ordinary text.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("1"),
            Self::Faint => Some("2"),
            Self::Typed => Some("1;36"),
            Self::Good => Some("32"),
            Self::Busy => Some("36"),
            Self::Alert => Some("33"),
        }
    }
}

/// One line of styled text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// A line of one style.
    pub fn of(style: Style, text: impl Into<String>) -> Self {
        Self::default().and(style, text)
    }

    /// A line of ordinary text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::of(Style::Plain, text)
    }

    /// An empty line.
    pub fn empty() -> Self {
        Self::default()
    }

    /// With more text behind it.
    #[must_use]
    pub fn and(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// The text without styles.
    #[cfg(test)]
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// No wider than so many columns.
    #[must_use]
    pub fn clipped(&self, width: usize) -> Self {
        let mut left = width;
        let mut kept = Vec::new();
        for (style, text) in &self.0 {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            kept.push((*style, text));
        }
        Self(kept)
    }

    /// As a terminal takes it.
    pub fn painted(&self, color: bool) -> String {
        let piece = |(style, text): &(Style, String)| match style.code().filter(|_| color) {
            Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
            None => text.clone(),
        };
        self.0.iter().map(piece).collect()
    }
}

/// Text broken into lines of at most so many columns, at spaces where there are some.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_clipped_by_what_one_sees_of_it() {
        let line = Line::of(Style::Good, "✔ done").and(Style::Faint, " at last");
        assert_eq!(line.clipped(8).text(), "✔ done a");
        assert_eq!(line.clipped(3).painted(true), "\x1b[32m✔ d\x1b[0m\x1b[2m\x1b[0m");
        assert_eq!(line.painted(false), "✔ done at last");
    }

    #[test]
    fn text_is_wrapped_at_spaces_and_long_words_stay_whole() {
        assert_eq!(wrapped("a bb ccc dddddddd e", 5), ["a bb", "ccc", "dddddddd", "e"]);
        assert!(wrapped("", 5).is_empty());
    }
}
