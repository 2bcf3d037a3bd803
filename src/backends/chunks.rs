//! Chunks of a streamed answer as an upstream wrote them, framed as server-sent events.
//!
//! Pure. The gateway forwards the bytes; only a judge or an error path looks into the objects.

use bytes::{BufMut, Bytes, BytesMut};

/// Chunks that arrived together.
#[derive(Clone, Debug)]
pub struct Chunks {
    /// Each one `data: `, its JSON object on one line, and a blank line. UTF-8.
    events: Bytes,
    /// How many of them carry output: text, reasoning, a call, and not only a role.
    outputs: u32,
    is_last: bool,
}

const FIELD: &[u8] = b"data: ";
const END: &[u8] = b"\n\n";

impl Chunks {
    /// `events` holds chunks written by [`Chunks::write_event`], of which `outputs` carry output.
    pub fn new(events: Bytes, outputs: u32) -> Self {
        Self { events, outputs, is_last: false }
    }

    /// The last chunk of an answer, `object`.
    pub fn last(object: &[u8], outputs: u32) -> Self {
        let mut events = BytesMut::with_capacity(object.len() + FIELD.len() + END.len());
        Self::write_event(&mut events, object);
        Self { events: events.freeze(), outputs, is_last: true }
    }

    /// Appends the event of one chunk, a JSON object.
    pub fn write_event(events: &mut BytesMut, object: &[u8]) {
        events.reserve(object.len() + FIELD.len() + END.len());
        events.put_slice(FIELD);
        let start = events.len();
        events.put_slice(object);
        if memchr::memchr2(b'\n', b'\r', object).is_some() {
            // A line break in JSON is white space, and in a data line it would end the line.
            for byte in &mut events[start..] {
                if matches!(byte, b'\n' | b'\r') {
                    *byte = b' ';
                }
            }
        }
        events.put_slice(END);
    }

    pub fn events(&self) -> &Bytes {
        &self.events
    }

    /// The JSON objects.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        let text = std::str::from_utf8(&self.events).unwrap_or_default();
        text.split("\n\n").filter_map(|event| event.strip_prefix("data: "))
    }

    /// The one object of a last chunk.
    pub fn into_object(self) -> Bytes {
        self.events.slice(FIELD.len()..self.events.len() - END.len())
    }

    pub fn outputs(&self) -> u32 {
        self.outputs
    }

    /// Whether no other chunk of the answer follows.
    pub fn is_last(&self) -> bool {
        self.is_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_back_on_one_line_each() {
        let mut events = BytesMut::new();
        Chunks::write_event(&mut events, br#"{"a":"\n"}"#);
        Chunks::write_event(&mut events, b"{\r\n \"b\": 1\n}");
        let chunks = Chunks::new(events.freeze(), 2);
        assert_eq!(chunks.objects().collect::<Vec<_>>(), [r#"{"a":"\n"}"#, r#"{   "b": 1 }"#]);
    }
}
