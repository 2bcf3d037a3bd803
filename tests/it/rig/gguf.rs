//! Writes small GGUF files.

use std::path::{Path, PathBuf};

const ALIGNMENT: usize = 32;

#[derive(Default)]
pub struct Gguf {
    entries: Vec<u8>,
    entry_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl Gguf {
    pub fn text(self, key: &str, value: &str) -> Self {
        const STRING: u32 = 8;
        self.entry(key, STRING, &text(value))
    }

    pub fn number(self, key: &str, value: u32) -> Self {
        const U32: u32 = 4;
        self.entry(key, U32, &value.to_le_bytes())
    }

    pub fn float(self, key: &str, value: f32) -> Self {
        const F32: u32 = 6;
        self.entry(key, F32, &value.to_le_bytes())
    }

    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.extend(text(key));
        self.entries.extend(kind.to_le_bytes());
        self.entries.extend(value);
        self.entry_count += 1;
        self
    }

    /// A matrix of 32-bit floats.
    pub fn matrix(
        mut self,
        name: &str,
        shape: [usize; 2],
        values: impl Iterator<Item = f32>,
    ) -> Self {
        const F32: u32 = 0;
        self.tensors.extend(text(name));
        self.tensors.extend(2_u32.to_le_bytes());
        self.tensors.extend(shape.iter().flat_map(|&side| (side as u64).to_le_bytes()));
        self.tensors.extend(F32.to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(values.take(shape[0] * shape[1]).flat_map(f32::to_le_bytes));
        self.data.resize(self.data.len().next_multiple_of(ALIGNMENT), 0);
        self.tensor_count += 1;
        self
    }

    pub fn write(self, path: PathBuf) -> PathBuf {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(self.tensor_count.to_le_bytes());
        bytes.extend(self.entry_count.to_le_bytes());
        bytes.extend(self.entries);
        bytes.extend(self.tensors);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend(self.data);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A header of SmolLM2's shape without weights: enough for an estimate of its memory.
pub fn header_only(folder: &Path) -> PathBuf {
    Gguf::default()
        .text("general.architecture", "llama")
        .number("llama.block_count", 30)
        .number("llama.embedding_length", 576)
        .number("llama.context_length", 8192)
        .number("llama.attention.head_count", 9)
        .number("llama.attention.head_count_kv", 3)
        .text("tokenizer.chat_template", "{{ messages }}")
        .write(folder.join("header.gguf"))
}
