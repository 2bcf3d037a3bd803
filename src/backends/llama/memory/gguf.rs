//! Parser of GGUF headers, for the values that determine memory use. Without llama.cpp, so that the
//! gateway may run it before a load.
//!
//! Files are untrusted: every length is checked against the remaining bytes, no allocation follows
//! a length in the file alone, and arrays are skipped without being stored. Does not decide whether
//! llama.cpp can run the model.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use reader::{Reader, Total};
use tensors::Tensors;

mod error;
mod reader;
mod tensors;

pub use self::error::GgufError;
pub use self::tensors::Tensor;

/// Maximum bytes of metadata read: the largest vocabularies with their merges take about 20 MiB.
const METADATA_MAX: u64 = 128 << 20;

/// The shape of a model by its header. Counts, and bytes where the name says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The whole file: weights and a small header.
    pub file_bytes: u64,
    pub layers: u64,
    pub embedding: u64,
    pub vocabulary: u64,
    /// Maximum sequence length in training; 0 if not in the header.
    pub context_tokens: u64,
    pub heads: u64,
    /// Sum over the layers; most models have the same number in each.
    pub kv_heads_of_all_layers: u64,
    pub key_length: u64,
    pub value_length: u64,
    /// The file has a chat template.
    pub has_chat_template: bool,
    /// The token embeddings, if the output shares their weights.
    pub tied: Option<Tensor>,
}

/// Reads the header of the file at `path`. Blocks for milliseconds.
pub fn read_shape(path: &Path) -> Result<Shape, GgufError> {
    let file = File::open(path)?;
    let file_bytes = file.metadata()?.len();
    parse(BufReader::with_capacity(1 << 18, file), file_bytes)
}

/// Parses a header; `file_bytes` is the length of the whole file.
pub fn parse(source: impl Read, file_bytes: u64) -> Result<Shape, GgufError> {
    let readable = METADATA_MAX.min(file_bytes);
    let mut reader = Reader::new(source, readable);
    if !reader.bytes().is_ok_and(|magic| &magic == b"GGUF") {
        return Err(GgufError::NotGguf);
    }
    match reader.u32()? {
        2 | 3 => {}
        version => return Err(GgufError::Version(version)),
    }
    let tensors = reader.u64()?;
    let entries = reader.u64()?;
    let mut metadata = Metadata::default();
    for _ in 0..entries {
        let key = reader.text()?.unwrap_or_default();
        let kind = reader.u32()?;
        metadata.take(&key, kind, &mut reader)?;
    }
    let tensors = Tensors::read(&mut reader, tensors)?;
    // Tensor data begins after the header.
    if tensors.last_offset > file_bytes - (readable - reader.left()) {
        return Err(GgufError::Broken("a tensor is beyond the end of the file"));
    }
    Ok(Shape { tied: tensors.tied(), ..metadata.shape(file_bytes) })
}

/// The relevant entries, by key after the architecture's name.
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
            if reader::is_float(kind) && !reader.float(kind)?.is_finite() {
                return Err(GgufError::NotFinite);
            }
            if !reader::is_float(kind) {
                reader.skip_value(kind, 0)?;
            }
            return Ok(());
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
        // llama.cpp's default if the header omits the lengths.
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
            tied: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::reader::{ARRAY, STRING};
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

    fn file(entries: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend((entries.len() as u64).to_le_bytes());
        bytes.extend(entries.concat());
        bytes.extend(tensors.concat());
        bytes
    }

    fn tensor(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Vec<u8> {
        let mut bytes = text(name);
        bytes.extend(u32::try_from(dimensions.len()).unwrap().to_le_bytes());
        bytes.extend(dimensions.iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes
    }

    fn number(value: u32) -> Vec<u8> {
        value.to_le_bytes().to_vec()
    }

    fn entries() -> Vec<Vec<u8>> {
        vec![
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
        ]
    }

    fn sample() -> Vec<u8> {
        let embeddings = tensor("token_embd.weight", &[64, 2], 8, 0);
        file(&entries(), &[embeddings, tensor("output_norm.weight", &[64], 0, 0)])
    }

    fn broken(bytes: &[u8]) -> &'static str {
        match parse(bytes, bytes.len() as u64) {
            Err(GgufError::Broken(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn embeddings_are_tied_where_the_output_has_no_weights() {
        let tensors =
            ["token_embd.weight", "output.weight"].map(|name| tensor(name, &[64, 2], 8, 0));
        let bytes = file(&entries(), &tensors);
        assert_eq!(parse(bytes.as_slice(), bytes.len() as u64).unwrap().tied, None);
    }

    #[test]
    fn impossible_tensors_are_refused() {
        let with = |tensor: Vec<u8>| file(&entries(), &[tensor]);
        assert!(broken(&with(tensor("a", &[1], 0, 1))).contains("beyond the end"));
        assert!(broken(&with(tensor("a", &[1 << 40, 1 << 40], 0, 0))).contains("larger than"));
        assert!(broken(&with(tensor("a", &[1; 5], 0, 0))).contains("dimensions"));
        let mut countless = file(&entries(), &[]);
        countless[8..16].fill(0xff);
        assert!(broken(&countless).contains("unexpected end"));
    }

    #[test]
    fn the_shape_is_read_and_other_entries_are_skipped() {
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
            tied: Some(Tensor { kind: 8, weights: 128 }),
        };
        assert_eq!(shape, expected);
    }

    #[test]
    fn other_files_and_versions_are_refused() {
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
            broken(&file(&[entry("x.y", kind, &value)], &[]));
        }
    }

    proptest! {
        /// Parsing any broken header terminates, with a shape or an error.
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
