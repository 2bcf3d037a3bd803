//! Reads from a GGUF's header what its memory use follows from. No llama.cpp, so the gateway may do it before a load.
//!
//! Files come from anywhere: every length is checked against what may still be read, nothing is allocated by a number
//! in the file alone, and arrays are walked without being kept. Says nothing about whether llama.cpp can run the model.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Most bytes of metadata read: the largest vocabularies with their merges take about 20 MiB.
const METADATA_MOST: u64 = 128 << 20;
/// Longest key or string that is looked at; longer ones are walked over.
const TEXT_MOST: u64 = 1 << 10;
/// Arrays of arrays do not occur; this is only a bound.
const DEPTH_MOST: u32 = 4;

/// The shape of a model, as far as its header tells. Units: counts, and bytes where the name says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The whole file: the weights, and a header that is small beside them.
    pub file_bytes: u64,
    pub layers: u64,
    pub embedding: u64,
    pub vocabulary: u64,
    /// Longest sequence the model was trained for; 0 if the header does not say.
    pub context_tokens: u64,
    pub heads: u64,
    /// Sum over the layers; most models have the same number in each.
    pub kv_heads_of_all_layers: u64,
    pub key_length: u64,
    pub value_length: u64,
    /// The model was made for conversations, and says how they are written.
    pub has_chat_template: bool,
}

/// Why a header could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is no GGUF file")]
    NotGguf,
    #[error("its GGUF version {0} is unknown")]
    Version(u32),
    #[error("its header is broken: {0}")]
    Broken(&'static str),
}

/// Reads the header of the file at `path`. Blocks for milliseconds.
pub fn read_shape(path: &Path) -> Result<Shape, GgufError> {
    let file = File::open(path)?;
    let file_bytes = file.metadata()?.len();
    parse(BufReader::with_capacity(1 << 18, file), file_bytes)
}

/// Parses a header; `file_bytes` is the length of the whole file.
pub fn parse(source: impl Read, file_bytes: u64) -> Result<Shape, GgufError> {
    let mut reader = Reader { source: source.take(METADATA_MOST.min(file_bytes)) };
    let mut magic = [0; 4];
    if reader.source.read_exact(&mut magic).is_err() || &magic != b"GGUF" {
        return Err(GgufError::NotGguf);
    }
    match reader.u32()? {
        2 | 3 => {}
        version => return Err(GgufError::Version(version)),
    }
    let _tensors = reader.u64()?;
    let entries = reader.u64()?;
    let mut metadata = Metadata::default();
    for _ in 0..entries {
        let key = reader.text()?.unwrap_or_default();
        let kind = reader.u32()?;
        metadata.take(&key, kind, &mut reader)?;
    }
    Ok(metadata.shape(file_bytes))
}

/// The entries that matter, by the part of the key after the architecture's name.
#[derive(Default)]
struct Metadata {
    layers: u64,
    embedding: u64,
    vocabulary: u64,
    context: u64,
    heads: Total,
    kv_heads: Option<Total>,
    key_length: Option<u64>,
    value_length: Option<u64>,
    has_chat_template: bool,
}

/// A number, or one for each layer.
#[derive(Clone, Copy, Default)]
struct Total {
    sum: u64,
    most: u64,
    per_layer: bool,
}

impl Metadata {
    fn take(
        &mut self,
        key: &str,
        kind: u32,
        reader: &mut Reader<impl Read>,
    ) -> Result<(), GgufError> {
        if key == "tokenizer.ggml.tokens" {
            self.vocabulary = reader.array(kind)?;
            return Ok(());
        }
        self.has_chat_template |= key == "tokenizer.chat_template";
        let field = key.split_once('.').map_or("", |(_, field)| field);
        if !matches!(
            field,
            "block_count"
                | "embedding_length"
                | "context_length"
                | "attention.head_count"
                | "attention.head_count_kv"
                | "attention.key_length"
                | "attention.value_length"
        ) {
            return reader.skip_value(kind, 0);
        }
        let total = reader.total(kind)?;
        match field {
            "block_count" => self.layers = total.most,
            "embedding_length" => self.embedding = total.most,
            "context_length" => self.context = total.most,
            "attention.head_count" => self.heads = total,
            "attention.head_count_kv" => self.kv_heads = Some(total),
            "attention.key_length" => self.key_length = Some(total.most),
            _ => self.value_length = Some(total.most),
        }
        Ok(())
    }

    fn shape(self, file_bytes: u64) -> Shape {
        let kv_heads = self.kv_heads.unwrap_or(self.heads);
        let of_all_layers = if kv_heads.per_layer {
            kv_heads.sum
        } else {
            kv_heads.most.saturating_mul(self.layers)
        };
        let heads = self.heads.most;
        // llama.cpp's own default where the header leaves the lengths out.
        let head_length = self.embedding.checked_div(heads).unwrap_or(0);
        Shape {
            file_bytes,
            layers: self.layers,
            embedding: self.embedding,
            vocabulary: self.vocabulary,
            context_tokens: self.context,
            heads,
            kv_heads_of_all_layers: of_all_layers,
            key_length: self.key_length.unwrap_or(head_length),
            value_length: self.value_length.unwrap_or(head_length),
            has_chat_template: self.has_chat_template,
        }
    }
}

/// The value types of GGUF.
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes of a value of a fixed size.
fn fixed_size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

struct Reader<R> {
    source: io::Take<R>,
}

impl<R: Read> Reader<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|_| GgufError::Broken("it ends too soon"))?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), GgufError> {
        if bytes > self.source.limit() {
            return Err(GgufError::Broken("a length goes beyond the file"));
        }
        let skipped = io::copy(&mut self.source.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(GgufError::Broken("it ends too soon")) }
    }

    /// A string, or nothing if it is too long to be one that matters.
    fn text(&mut self) -> Result<Option<String>, GgufError> {
        let length = self.u64()?;
        if length > TEXT_MOST {
            self.skip(length)?;
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut bytes)?;
        Ok(String::from_utf8(bytes).ok())
    }

    fn skip_value(&mut self, kind: u32, depth: u32) -> Result<(), GgufError> {
        match kind {
            STRING => {
                let length = self.u64()?;
                self.skip(length)
            }
            ARRAY if depth < DEPTH_MOST => {
                let (kind, count) = (self.u32()?, self.u64()?);
                self.skip_elements(kind, count, depth + 1)
            }
            kind => self.skip(fixed_size(kind).ok_or(GgufError::Broken("an unknown type"))?),
        }
    }

    fn skip_elements(&mut self, kind: u32, count: u64, depth: u32) -> Result<(), GgufError> {
        if let Some(size) = fixed_size(kind) {
            return self.skip(count.saturating_mul(size));
        }
        // Each element takes at least its length's bytes, so a count too high runs into the end soon.
        for _ in 0..count {
            self.skip_value(kind, depth)?;
        }
        Ok(())
    }

    /// Number of elements of an array, which is walked over.
    fn array(&mut self, kind: u32) -> Result<u64, GgufError> {
        if kind != ARRAY {
            return Err(GgufError::Broken("the vocabulary is no list"));
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        self.skip_elements(kind, count, 1)?;
        Ok(count)
    }

    /// A whole number, or an array of them.
    fn total(&mut self, kind: u32) -> Result<Total, GgufError> {
        if kind != ARRAY {
            let value = self.whole(kind)?;
            return Ok(Total { sum: value, most: value, per_layer: false });
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        let mut total = Total { per_layer: true, ..Total::default() };
        for _ in 0..count {
            let value = self.whole(kind)?;
            total.sum = total.sum.saturating_add(value);
            total.most = total.most.max(value);
        }
        Ok(total)
    }

    fn whole(&mut self, kind: u32) -> Result<u64, GgufError> {
        match kind {
            0 => Ok(self.bytes::<1>()?[0].into()),
            2 => Ok(u16::from_le_bytes(self.bytes()?).into()),
            4 => Ok(self.u32()?.into()),
            5 => Ok(u64::try_from(i32::from_le_bytes(self.bytes()?)).unwrap_or(0)),
            10 => self.u64(),
            11 => Ok(u64::try_from(i64::from_le_bytes(self.bytes()?)).unwrap_or(0)),
            _ => Err(GgufError::Broken("a count is no whole number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
        [text(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
    }

    fn list(kind: u32, values: &[Vec<u8>]) -> Vec<u8> {
        [kind.to_le_bytes().to_vec(), (values.len() as u64).to_le_bytes().to_vec(), values.concat()]
            .concat()
    }

    fn file(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend((entries.len() as u64).to_le_bytes());
        bytes.extend(entries.concat());
        bytes
    }

    fn number(value: u32) -> Vec<u8> {
        value.to_le_bytes().to_vec()
    }

    fn sample() -> Vec<u8> {
        file(&[
            entry("general.architecture", STRING, &text("llama")),
            entry("llama.block_count", 4, &number(3)),
            entry("llama.embedding_length", 4, &number(64)),
            entry("llama.context_length", 4, &number(2048)),
            entry("llama.attention.head_count", 4, &number(8)),
            entry(
                "llama.attention.head_count_kv",
                ARRAY,
                &list(4, &[number(2), number(1), number(2)]),
            ),
            entry("tokenizer.ggml.tokens", ARRAY, &list(STRING, &[text("a"), text("bc")])),
            entry("tokenizer.chat_template", STRING, &text("{{ messages }}")),
            entry("tokenizer.ggml.scores", ARRAY, &list(6, &[number(0), number(0)])),
        ])
    }

    #[test]
    fn the_shape_is_read_and_the_rest_is_walked_over() {
        let bytes = sample();
        let shape = parse(bytes.as_slice(), bytes.len() as u64).unwrap();
        let expected = Shape {
            file_bytes: bytes.len() as u64,
            layers: 3,
            embedding: 64,
            vocabulary: 2,
            context_tokens: 2048,
            heads: 8,
            kv_heads_of_all_layers: 5,
            key_length: 8,
            value_length: 8,
            has_chat_template: true,
        };
        assert_eq!(shape, expected);
    }

    #[test]
    fn what_is_no_gguf_is_told_apart() {
        assert!(matches!(parse(&b"PK\x03\x04"[..], 4), Err(GgufError::NotGguf)));
        assert!(matches!(parse(&b""[..], 0), Err(GgufError::NotGguf)));
        let mut old = sample();
        old[4] = 1;
        assert!(matches!(parse(old.as_slice(), 999), Err(GgufError::Version(1))));
    }

    #[test]
    fn lengths_beyond_the_file_end_at_once() {
        for (kind, value) in [
            (STRING, u64::MAX.to_le_bytes().to_vec()),
            (ARRAY, [number(4), u64::MAX.to_le_bytes().to_vec()].concat()),
            (ARRAY, [number(STRING), u64::MAX.to_le_bytes().to_vec()].concat()),
        ] {
            let bytes = file(&[entry("x.y", kind, &value)]);
            assert!(matches!(
                parse(bytes.as_slice(), bytes.len() as u64),
                Err(GgufError::Broken(_))
            ));
        }
    }

    proptest! {
        /// Whatever is broken in a header, reading it ends, with a shape or an error.
        #[test]
        fn hostile_headers_are_survived(changes in prop::collection::vec((8usize..400, any::<u8>()), 0..12), cut in 8usize..500) {
            let mut bytes = sample();
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(cut);
            let _either = parse(bytes.as_slice(), bytes.len() as u64);
        }
    }
}
