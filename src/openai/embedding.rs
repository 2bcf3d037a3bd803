//! Embeddings (`POST /v1/embeddings`): one vector per input text.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::input::Inputs;
use super::lenient;

/// Most inputs of one request, OpenAI's limit.
pub const MAX_INPUTS: usize = 2048;

/// Body of `POST /v1/embeddings`, as far as Wattgate reads it.
#[derive(Debug, Deserialize)]
pub struct EmbeddingRequest {
    /// A model's own name, or `auto` if exactly one model computes embeddings.
    pub model: String,
    /// 1 to [`MAX_INPUTS`] non-empty inputs.
    pub input: Inputs,
    #[serde(default)]
    pub encoding_format: Option<EncodingFormat>,
    /// Dimensions of the vectors, at most the model's own. Shortened vectors are scaled to unit
    /// length.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub dimensions: Option<u32>,
    /// Wattgate's own options; read by the edge.
    #[serde(default)]
    pub wattgate: Option<Box<RawValue>>,
    /// Names the end user. Of any type: only some upstreams care.
    #[serde(default)]
    pub user: Option<Value>,
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
}

/// Encoding of the vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// A JSON array of numbers.
    #[default]
    Float,
    /// Little-endian 32-bit floats in base64, a third of the size; the default of OpenAI's clients.
    Base64,
}

/// Body of the answer.
#[derive(Debug, Serialize)]
pub struct EmbeddingResponse {
    /// Always `list`.
    pub object: &'static str,
    pub data: Vec<Embedding>,
    pub model: String,
    pub usage: EmbeddingUsage,
}

#[derive(Debug, Serialize)]
pub struct Embedding {
    /// Always `embedding`.
    pub object: &'static str,
    /// Index of its input in the request.
    pub index: usize,
    pub embedding: Vector,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize)]
pub struct EmbeddingUsage {
    pub prompt_tokens: u64,
    pub total_tokens: u64,
}
