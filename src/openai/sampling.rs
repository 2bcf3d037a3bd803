//! The fields that shape sampling, which conversations and raw prompts share: one view of both.

use std::collections::BTreeMap;

use super::chat::ChatRequest;
use super::completion::CompletionRequest;

/// As the client wrote them; what they mean stands at [`ChatRequest`]'s fields.
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

/// Both requests name the fields alike.
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
                    repeat_penalty: self.repeat_penalty,
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
