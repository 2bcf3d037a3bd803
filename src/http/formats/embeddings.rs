//! Vectors for texts. Never streamed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::events::EventWriter;
use super::format::{Answer, Content, ReplyFormat, json};
use crate::backends::Event;
use crate::http::error::ApiError;
use crate::openai::Usage;
use crate::openai::embedding::{
    Embedding, EmbeddingResponse, EmbeddingUsage, EncodingFormat, Vector,
};
use crate::traffic::Receipt;

pub struct Embeddings {
    encoding: EncodingFormat,
    model: String,
}

impl Embeddings {
    pub fn new(encoding: EncodingFormat, model: &str) -> Self {
        Self { encoding, model: model.to_owned() }
    }

    fn render(&self, vectors: Vec<Vec<f32>>, usage: Usage) -> Bytes {
        let embedding = |(index, vector)| Embedding {
            object: "embedding",
            index,
            embedding: encode(vector, self.encoding),
        };
        json(&EmbeddingResponse {
            object: "list",
            data: vectors.into_iter().enumerate().map(embedding).collect(),
            model: self.model.clone(),
            usage: EmbeddingUsage {
                prompt_tokens: usage.prompt_tokens,
                total_tokens: usage.total_tokens,
            },
        })
    }
}

impl ReplyFormat for Embeddings {
    fn event(&mut self, _event: Event, _out: &mut EventWriter) {}

    fn finish(&mut self, _receipt: &Receipt, _out: &mut EventWriter) {}

    fn whole(&mut self, answer: Answer) -> Result<Bytes, ApiError> {
        match answer.content {
            Content::Upstream(object) => Ok(object),
            Content::Vectors(vectors) => Ok(self.render(vectors, answer.usage)),
            Content::Local(_) => Err(ApiError::INTERNAL),
        }
    }
}

fn encode(vector: Vec<f32>, format: EncodingFormat) -> Vector {
    match format {
        EncodingFormat::Float => Vector::Float(vector),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_hold_the_same_numbers() {
        let usage = Usage { prompt_tokens: 3, total_tokens: 3, ..Usage::default() };
        let json = |encoding| {
            let text = Embeddings::new(encoding, "m").render(vec![vec![1.0, -0.25]], usage);
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()
        };
        assert_eq!(
            json(EncodingFormat::Float)["data"][0]["embedding"],
            serde_json::json!([1.0, -0.25])
        );
        // 1.0 is 0x3f800000 and -0.25 is 0xbe800000, lowest byte first.
        assert_eq!(json(EncodingFormat::Base64)["data"][0]["embedding"], "AACAPwAAgL4=");
        let usage = serde_json::json!({"prompt_tokens": 3, "total_tokens": 3});
        assert_eq!(json(EncodingFormat::Float)["usage"], usage);
    }
}
