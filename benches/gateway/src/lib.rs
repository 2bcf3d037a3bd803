//! HTTP/1.1 over blocking sockets, as far as the mock upstream and the load generator need it: one
//! message at a time, bodies with a length or in chunks.
//!
//! Allocates nothing per message once its buffers have grown: what it takes is charged to the
//! machine under test.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;

/// Reads messages from one connection.
pub struct Reader {
    socket: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// Start line and headers of a message.
pub struct Head {
    /// With the blank line that ends it.
    pub text: String,
}

impl Head {
    /// Value of the header with this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = |line: &'_ str| {
            let (key, _) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| key.len() + 1)
        };
        self.text.lines().find_map(|line| value(line).map(|at| line[at..].trim()))
    }

    /// The second word of the start line: a request's path or a response's status.
    pub fn word(&self) -> &str {
        self.text.split(' ').nth(1).unwrap_or_default()
    }

    fn length(&self) -> io::Result<Option<usize>> {
        let length = self.header("content-length").map(str::parse).transpose();
        length.map_err(|_| invalid("content-length is not a number"))
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }
}

impl Reader {
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, buffer: vec![0; 64 << 10], start: 0, end: 0 }
    }

    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The next head. `None` if the peer closed the connection between messages.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(length) = self.find(b"\r\n\r\n")? else { return Ok(None) };
        let text =
            String::from_utf8_lossy(&self.buffer[self.start..self.start + length]).into_owned();
        self.start += length;
        Ok(Some(Head { text }))
    }

    /// Reads a body to its end, handing each piece to `sink`.
    pub fn body(&mut self, head: &Head, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        if !head.is_chunked() {
            return self.pass(head.length()?.unwrap_or(0), &mut sink);
        }
        loop {
            let line = self.find(b"\r\n")?.ok_or(ErrorKind::UnexpectedEof)?;
            let digits =
                self.buffer[self.start..self.start + line].split(|byte| *byte == b';').next();
            let digits = std::str::from_utf8(digits.unwrap_or_default()).unwrap_or_default().trim();
            let size =
                usize::from_str_radix(digits, 16).map_err(|_| invalid("a chunk without a size"))?;
            self.start += line;
            self.pass(size, &mut sink)?;
            self.pass(2, &mut |_| {})?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn pass(&mut self, mut left: usize, sink: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while left > 0 {
            if self.start == self.end && !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let piece = left.min(self.end - self.start);
            sink(&self.buffer[self.start..self.start + piece]);
            self.start += piece;
            left -= piece;
        }
        Ok(())
    }

    /// Length of what is unread up to and with `mark`. `None` at a clean end of the connection.
    fn find(&mut self, mark: &[u8]) -> io::Result<Option<usize>> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = unread.windows(mark.len()).position(|window| window == mark) {
                return Ok(Some(at + mark.len()));
            }
            let was_empty = unread.is_empty();
            if !self.fill()? {
                return if was_empty { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads once. False at the end of the connection.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            return Err(invalid("a head or a chunk's size that does not fit the buffer"));
        }
        let read = self.socket.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read > 0)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
