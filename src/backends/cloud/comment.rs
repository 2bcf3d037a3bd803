//! Finds, among the comments of an event stream, the one that says what the answer took.
//!
//! Reads along as bytes come, however they are cut; remembers no more than one line. Everything else is the SSE
//! decoder's.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::energy::EnergyFigure;
use crate::energy::prediction::upstream;

/// Longest comment that is read: the known form has some 200 bytes.
const MAX_BYTES: usize = 4096;

/// The figure of a stream's comments, shared between who reads the bytes and who closes the answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Comments(Arc<Mutex<Scanner>>);

impl Comments {
    pub(super) fn feed(&self, piece: &[u8]) {
        self.0.lock().feed(piece);
    }

    /// What the last such comment said.
    pub(super) fn energy(&self) -> Option<EnergyFigure> {
        self.0.lock().energy
    }
}

#[derive(Debug, Default)]
struct Scanner {
    line: Line,
    energy: Option<EnergyFigure>,
}

#[derive(Debug, Default)]
enum Line {
    #[default]
    Start,
    Comment(Vec<u8>),
    /// A field, or a comment too long to be read.
    Other,
}

impl Scanner {
    fn feed(&mut self, piece: &[u8]) {
        for &byte in piece {
            match (&mut self.line, byte) {
                (line, b'\n' | b'\r') => {
                    if let Line::Comment(text) = std::mem::take(line) {
                        let text = std::str::from_utf8(&text).unwrap_or_default();
                        self.energy = upstream::from_sse_comment(text).or(self.energy);
                    }
                }
                (line @ Line::Start, b':') => *line = Line::Comment(Vec::new()),
                (Line::Comment(text), byte) if text.len() < MAX_BYTES => text.push(byte),
                (line, _) => *line = Line::Other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Joules;

    fn read(pieces: &[&[u8]]) -> Option<Joules> {
        let comments = Comments::default();
        for piece in pieces {
            comments.feed(piece);
        }
        comments.energy()?.joules
    }

    const STREAM: &[u8] = b"data: {\"x\":\": energy {}\"}\n\n: ping\n\n: energy {\"energy_joules\":4.5}\n\ndata: [DONE]\n\n";

    #[test]
    fn the_comment_is_found_however_the_stream_is_cut() {
        assert_eq!(read(&[STREAM]), Some(Joules(4.5)));
        for cut in 0..STREAM.len() {
            let (head, tail) = STREAM.split_at(cut);
            assert_eq!(read(&[head, tail]), Some(Joules(4.5)), "{cut}");
        }
    }

    #[test]
    fn other_lines_and_endless_ones_are_nothing() {
        assert_eq!(read(&[b"data: energy {\"energy_joules\":4.5}\n"]), None);
        assert_eq!(read(&[b": energy {\"energy_joules\":4.5}"]), None, "it never ended");
        let long = [b": energy {\"energy_joules\":4.5}".to_vec(), vec![b' '; 5000], b"\n".to_vec()];
        assert_eq!(read(&[&long.concat()]), None);
    }
}
