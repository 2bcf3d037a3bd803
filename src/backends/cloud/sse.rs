//! Server-sent events of a byte stream, however it is cut: the data of each event, and the energy
//! that a comment reports.
//!
//! Pure. Reads what the SSE standard defines, as far as an answer in JSON needs it: lines end with
//! LF, CRLF or CR, a byte order mark at the start is skipped, and the last event counts
//! without its blank line, which the standard would drop.

use memchr::memchr2;

use crate::energy::EnergyFigure;
use crate::energy::prediction::upstream;

/// Longest comment that is read: the known form has some 200 bytes.
const COMMENT_BYTES_MAX: usize = 4096;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The state between two pieces of a stream.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// A line has ended: no byte order mark can follow.
    begun: bool,
    /// The last piece ended with CR, so an LF at the start of the next one belongs to it.
    after_cr: bool,
    /// Beginning of the line that the last piece cut.
    line: Vec<u8>,
    /// Data of the event that is not complete; `None` before its first `data` line.
    data: Option<Vec<u8>>,
    /// The event is named `error`.
    is_error: bool,
    energy: Option<EnergyFigure>,
}

/// What a line means.
enum Line<'l> {
    /// Ends the event.
    Blank,
    Data(&'l [u8]),
    Comment(&'l [u8]),
    /// The event's name.
    Name(&'l [u8]),
    /// `id`, `retry`, and fields that do not exist.
    Other,
}

impl Scanner {
    /// Calls `each` with the data of every event that `piece` completes, and with whether the event
    /// is named `error`; stops at its first error.
    pub(super) fn feed<E>(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(&[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = match piece {
            [] => return Ok(()),
            [b'\n', rest @ ..] if self.after_cr => rest,
            _ => piece,
        };
        self.after_cr = false;
        // Data of an event that began in this piece: not copied unless the piece ends before the
        // event.
        let mut data: Option<&[u8]> = None;
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            let (line, mut next) = (&rest[..end], &rest[end + 1..]);
            if rest[end] == b'\r' {
                self.after_cr = next.is_empty();
                next = next.strip_prefix(b"\n").unwrap_or(next);
            }
            rest = next;
            if !self.line.is_empty() {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.cut_line(&whole, &mut each)?;
                continue;
            }
            match self.read_line(line) {
                Line::Data(first) if data.is_none() && self.data.is_none() => data = Some(first),
                Line::Data(more) => {
                    self.keep(data.take());
                    self.append(more);
                }
                Line::Blank => match data.take() {
                    Some(data) => each(data, std::mem::take(&mut self.is_error))?,
                    None => self.end_event(&mut each)?,
                },
                Line::Comment(text) => self.read_comment(text),
                Line::Name(name) => self.is_error = name == b"error",
                Line::Other => {}
            }
        }
        self.keep(data);
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// What the last comment of the known form said the answer took.
    pub(super) fn energy(&self) -> Option<EnergyFigure> {
        self.energy
    }

    /// Ends the stream: as [`Self::feed`] for an event that only lacks its blank line.
    pub(super) fn end<E>(
        &mut self,
        mut each: impl FnMut(&[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.cut_line(&line, &mut each)?;
        }
        self.end_event(&mut each)
    }

    /// Bytes held of an event that is not complete.
    pub(super) fn held_bytes(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, Vec::len)
    }

    /// A line that came in more than one piece.
    fn cut_line<E>(
        &mut self,
        line: &[u8],
        each: &mut impl FnMut(&[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.read_line(line) {
            Line::Data(more) => self.append(more),
            Line::Blank => self.end_event(each)?,
            Line::Comment(text) => self.read_comment(text),
            Line::Name(name) => self.is_error = name == b"error",
            Line::Other => {}
        }
        Ok(())
    }

    fn read_line<'l>(&mut self, mut line: &'l [u8]) -> Line<'l> {
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        match line {
            [] => Line::Blank,
            [b':', text @ ..] => Line::Comment(text),
            b"data" => Line::Data(b""),
            [b'd', b'a', b't', b'a', b':', b' ', value @ ..]
            | [b'd', b'a', b't', b'a', b':', value @ ..] => Line::Data(value),
            [b'e', b'v', b'e', b'n', b't', b':', name @ ..] => Line::Name(name.trim_ascii()),
            _ => Line::Other,
        }
    }

    fn read_comment(&mut self, text: &[u8]) {
        if text.len() <= COMMENT_BYTES_MAX
            && let Ok(text) = std::str::from_utf8(text)
        {
            self.energy = upstream::from_sse_comment(text).or(self.energy);
        }
    }

    fn keep(&mut self, data: Option<&[u8]>) {
        if let Some(data) = data {
            self.append(data);
        }
    }

    /// Several `data` lines of an event are joined by line feeds.
    fn append(&mut self, more: &[u8]) {
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(more);
            }
            None => self.data = Some(more.to_vec()),
        }
    }

    fn end_event<E>(
        &mut self,
        each: &mut impl FnMut(&[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_error = std::mem::take(&mut self.is_error);
        self.data.take().map_or(Ok(()), |data| each(&data, is_error))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::units::Joules;

    /// The data of all events, and the energy that a comment reported.
    fn read(pieces: &[&[u8]]) -> (Vec<String>, Option<Joules>) {
        let (mut scanner, mut events) = (Scanner::default(), Vec::new());
        for piece in pieces {
            let Ok(()) = scanner.feed(piece, |data, _| {
                events.push(String::from_utf8_lossy(data).into_owned());
                Ok::<(), Infallible>(())
            });
        }
        let joules = scanner.energy().and_then(|figure| figure.joules);
        (events, joules)
    }

    const STREAM: &str = "\u{feff}: energy {\"energy_joules\":4.5}\r\n\r\nevent: x\rdata: one\rid: 7\r\rdata:two\ndata: and \u{e9}\n\n\
        : ping\n\ndata\n\ndata: : energy {\"energy_joules\":9}\r\n\r\n:energyless\ndata: [DONE]\n\ndata: lost";

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let whole = read(&[STREAM.as_bytes()]);
        let data = ["one", "two\nand \u{e9}", "", ": energy {\"energy_joules\":9}", "[DONE]"];
        assert_eq!(whole, (data.map(str::to_owned).to_vec(), Some(Joules(4.5))));
        for cut in 0..=STREAM.len() {
            let (head, tail) = STREAM.as_bytes().split_at(cut);
            assert_eq!(read(&[head, tail]), whole, "{cut}");
            let (middle, tail) = tail.split_at(tail.len() / 2);
            assert_eq!(read(&[head, middle, b"", tail]), whole, "{cut}");
        }
        let bytes: Vec<&[u8]> = STREAM.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), whole);
    }

    #[test]
    fn data_is_no_comment_and_an_unfinished_or_endless_comment_is_not_read() {
        assert_eq!(read(&[b"data: energy {\"energy_joules\":4.5}\n"]).1, None);
        assert_eq!(read(&[b": energy {\"energy_joules\":4.5}"]).1, None);
        let long = [b": energy {\"energy_joules\":4.5}".to_vec(), vec![b' '; 5000], b"\n".to_vec()];
        assert_eq!(read(&[&long.concat()]).1, None);
    }

    #[test]
    fn an_event_that_is_named_error_is_told_from_others() {
        let stream =
            b"event: error\ndata: a\n\ndata: b\n\nevent:error\n\ndata: c\n\ndata: d\nevent: x\n\n";
        for cut in 0..stream.len() {
            let (mut scanner, mut events) = (Scanner::default(), String::new());
            for piece in [&stream[..cut], &stream[cut..]] {
                let Ok(()) = scanner.feed(piece, |data, is_error| {
                    events.push_str(if is_error { "!" } else { "" });
                    events.push_str(&String::from_utf8_lossy(data));
                    Ok::<(), Infallible>(())
                });
            }
            assert_eq!(events, "!abcd", "{cut}");
        }
    }

    #[test]
    fn an_event_that_is_not_complete_counts_its_bytes() {
        let mut scanner = Scanner::default();
        let mut feed = |piece: &[u8]| {
            let Ok(()) = scanner.feed(piece, |_, _| Ok::<(), Infallible>(()));
            scanner.held_bytes()
        };
        assert_eq!(feed(b"data: 12345\ndata: 6"), 12);
        assert_eq!(feed(b"\n\n: ping\n"), 0);
    }
}
