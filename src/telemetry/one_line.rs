//! Text from files and other processes as part of a line of the log.

use std::io::{self, Write};

/// The text without characters that end a line of the log or steer a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Controls, separators of lines, and marks that reverse the direction of text.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes events of a log, each as one line, whatever their text holds.
#[derive(Debug)]
pub struct OneLine<W>(pub W);

impl<W: Write> Write for OneLine<W> {
    /// Takes a whole event with its line end, as `tracing` writes them.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        self.0.write_all(format!("{}{end}", one_line(text)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_ends_the_line_or_steers_a_terminal() {
        let forged = "name\n2026 ERROR all is well\r\x1b[31m\u{85}\u{2028}\u{202e}é";
        let mut log = Vec::new();
        OneLine(&mut log).write_all(format!("{forged}\n").as_bytes()).unwrap();
        let log = String::from_utf8(log).unwrap();
        assert_eq!(log.lines().count(), 1);
        assert!(log.ends_with("é\n") && !log.trim_end().chars().any(steers), "{log:?}");
    }
}
