//! The shape of an answer to a request for embeddings, as Wattgate writes it for its local models. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::openai::Usage;
use crate::openai::embedding::{
    Embedding, EmbeddingResponse, EmbeddingUsage, EncodingFormat, Vector,
};

/// The whole answer as JSON.
pub fn render(
    vectors: Vec<Vec<f32>>,
    format: EncodingFormat,
    model: &str,
    usage: Usage,
) -> serde_json::Result<String> {
    let vectors = vectors.into_iter().enumerate();
    serde_json::to_string(&EmbeddingResponse {
        object: "list",
        data: vectors
            .map(|(index, vector)| Embedding {
                object: "embedding",
                index,
                embedding: encode(vector, format),
            })
            .collect(),
        model: model.to_owned(),
        usage: EmbeddingUsage {
            prompt_tokens: usage.prompt_tokens,
            total_tokens: usage.total_tokens,
        },
    })
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
        let json = |format| {
            let text = render(vec![vec![1.0, -0.25]], format, "m", usage).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()
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
