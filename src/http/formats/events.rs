//! Server-sent events as they leave: chunks, comments and the end of a stream, collected until they
//! can be sent.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::backends::Chunks;
use crate::http::receipt::write_with_receipt;
use crate::traffic::Receipt;

/// Events that are ready to be sent.
#[derive(Debug, Default)]
pub struct EventWriter(BytesMut);

impl EventWriter {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The events so far, which are then no longer here.
    pub fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }

    /// Chunks as an upstream wrote them.
    pub fn forward(&mut self, chunks: &Chunks) {
        self.0.extend_from_slice(chunks.events());
    }

    /// A chunk.
    pub fn chunk(&mut self, chunk: &impl Serialize) {
        self.0.put_slice(b"data: ");
        self.json(chunk);
        self.0.put_slice(b"\n\n");
    }

    /// An event with a name.
    pub fn named(&mut self, name: &str, data: &impl Serialize) {
        self.0.put_slice(b"event: ");
        self.0.put_slice(name.as_bytes());
        self.0.put_slice(b"\n");
        self.chunk(data);
    }

    /// The last chunks of a stream: `last`, and `usage` after it where it was asked for. The last
    /// of them carries the receipt. Both are texts of JSON objects.
    pub fn close(&mut self, last: &[u8], usage: Option<&[u8]>, receipt: &Receipt) {
        let with_receipt = match usage {
            Some(usage) => {
                Chunks::write_event(&mut self.0, last);
                usage
            }
            None => last,
        };
        self.object_with_receipt(with_receipt, receipt);
    }

    /// A chunk, the text of a JSON object.
    pub fn object(&mut self, object: &[u8]) {
        Chunks::write_event(&mut self.0, object);
    }

    /// A chunk, the text of a JSON object, with the receipt as one more field.
    pub fn object_with_receipt(&mut self, object: &[u8], receipt: &Receipt) {
        self.0.put_slice(b"data: ");
        write_with_receipt(&mut self.0, object, receipt);
        self.0.put_slice(b"\n\n");
    }

    /// `: {name} {value}`
    pub fn comment(&mut self, name: &str, value: &impl Serialize) {
        self.0.put_slice(b": ");
        self.0.put_slice(name.as_bytes());
        self.0.put_slice(b" ");
        self.json(value);
        self.0.put_slice(b"\n\n");
    }

    /// A comment without a meaning, so that proxies see traffic.
    pub fn keep_alive(&mut self) {
        self.0.put_slice(b":\n\n");
    }

    /// The end of the stream.
    pub fn done(&mut self) {
        self.0.put_slice(b"data: [DONE]\n\n");
    }

    fn json(&mut self, value: &impl Serialize) {
        // Memory and values of strings and numbers: cannot fail.
        let _ = serde_json::to_writer((&mut self.0).writer(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_framed_and_taken_once() {
        let mut out = EventWriter::default();
        out.chunk(&serde_json::json!({"a": "\n"}));
        out.comment("energy", &1);
        out.keep_alive();
        out.named("ping", &1);
        out.done();
        assert_eq!(
            &out.take()[..],
            b"data: {\"a\":\"\\n\"}\n\n: energy 1\n\n:\n\nevent: ping\ndata: 1\n\ndata: [DONE]\n\n"
        );
        assert!(out.is_empty());
    }
}
