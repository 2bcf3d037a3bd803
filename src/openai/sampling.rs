//! Sampling fields, which chat and raw-prompt requests share: one view of both.

use std::collections::BTreeMap;

use super::chat::ChatRequest;
use super::completion::CompletionRequest;

/// The values of the client; documented at the fields of [`ChatRequest`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SamplingFields<'r> {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i32>,
    pub min_p: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub logit_bias: Option<&'r BTreeMap<u32, f32>>,
    pub seed: Option<i64>,
    pub n: Option<u32>,
}

/// Both requests use the same field names.
macro_rules! sampling_fields {
    ($request:ty) => {
        impl $request {
            pub fn sampling(&self) -> SamplingFields<'_> {
                SamplingFields {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    frequency_penalty: self.frequency_penalty,
                    presence_penalty: self.presence_penalty,
                    repeat_penalty: self.repeat_penalty.or(self.repetition_penalty),
                    logit_bias: self.logit_bias.as_ref(),
                    seed: self.seed,
                    n: self.n,
                }
            }
        }
    };
}

sampling_fields!(ChatRequest);
sampling_fields!(CompletionRequest);
