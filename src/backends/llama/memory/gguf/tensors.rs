//! The tensor list at the end of a GGUF header, for the values that determine memory use.

use std::io::Read;

use super::error::GgufError;
use super::reader::Reader;

/// A matrix of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// ggml's id of the weight type.
    pub kind: u32,
    pub weights: u64,
}

/// Summary of the list.
#[derive(Default)]
pub(super) struct Tensors {
    embeddings: Option<Tensor>,
    has_output: bool,
    /// Greatest offset, counted from the end of the header.
    pub(super) last_offset: u64,
}

/// ggml's limit.
const DIMENSIONS_MAX: u32 = 4;

impl Tensors {
    pub(super) fn read(reader: &mut Reader<impl Read>, count: u64) -> Result<Self, GgufError> {
        let mut tensors = Self::default();
        for _ in 0..count {
            let name = reader.text()?.unwrap_or_default();
            let dimensions = reader.u32()?;
            if dimensions > DIMENSIONS_MAX {
                return Err(GgufError::Broken("a tensor has too many dimensions"));
            }
            let mut weights: u64 = 1;
            for _ in 0..dimensions {
                weights = weights
                    .checked_mul(reader.u64()?)
                    .ok_or(GgufError::Broken("a tensor is larger than can be counted"))?;
            }
            let kind = reader.u32()?;
            tensors.last_offset = tensors.last_offset.max(reader.u64()?);
            match name.as_str() {
                "token_embd.weight" => tensors.embeddings = Some(Tensor { kind, weights }),
                "output.weight" => tensors.has_output = true,
                _ => {}
            }
        }
        Ok(tensors)
    }

    pub(super) fn tied(&self) -> Option<Tensor> {
        self.embeddings.filter(|_| !self.has_output)
    }
}
