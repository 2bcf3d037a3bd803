//! The frames between gateway and engine process: a big-endian u32 length, then a postcard-encoded message.
//!
//! Both ends are the same binary, so there is no version to negotiate. Bounded, so that neither end can make the
//! other allocate without limit. The socket's end is the message "the other one is gone".

use std::io::{self, Read};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::answer::Piece;
use super::config::{FlashAttention, KvType};
use super::constraint::{Constraint, GrammarError};
use super::conversation::Conversation;
use super::logprobs::TokenLogprobs;
use super::observer::StepReport;
use super::overflow::Overflow;
use super::sampling::Sampling;
use super::scheduler::{Rejection, Token};
use crate::backends::backend::TokenConfidence;
use crate::backends::terms::Terms;
use crate::openai::{FinishReason, Input};
use crate::units::{AttemptId, MonotonicNs};

/// Longest message in bytes: a prompt of millions of tokens fits.
pub const MAX_FRAME: usize = 32 << 20;

/// Bytes of the length before each message.
pub const HEADER: usize = size_of::<u32>();

#[derive(Debug, Serialize, Deserialize)]
pub enum ToEngine {
    /// The first frame, once.
    Load(Settings),
    Submit(Submission),
    /// For an engine with an embedding model.
    Embed(Embed),
    /// Answered by `Closed`, whatever the attempt was doing.
    Cancel(AttemptId),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub gguf: PathBuf,
    pub context_tokens: u32,
    pub slots: u32,
    /// At least 1.
    pub threads: u32,
    pub batch_tokens: u32,
    pub queue: u32,
    pub gpu_layers: u32,
    pub flash_attention: FlashAttention,
    pub kv_type: KvType,
    pub mmap: bool,
    pub mlock: bool,
    /// An adapter's file, and how strongly it is applied.
    pub lora: Option<(PathBuf, f32)>,
    /// Instead of the GGUF's own chat template: a file, or `chatml`.
    pub chat_template: Option<PathBuf>,
    /// Bytes of host memory for sequences that lost their slot.
    pub host_cache_bytes: u64,
    /// Most tokens guessed in one step, for all answers together.
    pub draft_tokens: u32,
    /// How many times longer a step may take that reads prompts while answers are written.
    pub prefill_stretch: f64,
    pub overflow: Overflow,
    /// The model gives vectors instead of text.
    pub embedding: bool,
    /// How a text's vectors become one; none: as the GGUF says.
    pub pooling: Option<Pooling>,
}

#[cfg(feature = "llama")]
impl Settings {
    /// Tokens of a slot of a model that was trained for `trained` of them; 0: its file does not say.
    pub(super) fn context_within(&self, trained: u32) -> u32 {
        self.context_tokens.clamp(1, if trained == 0 { u32::MAX } else { trained })
    }
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    Mean,
    /// The first token's, which BERT reserves for this.
    Cls,
    Last,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Submission {
    pub attempt: AttemptId,
    pub prompt: Prompt,
    pub sampling: Sampling,
    pub output_limit: u32,
    pub stop: Vec<String>,
    /// Go on where the model would end its turn.
    pub ignore_eos: bool,
    /// Tell each token's log-probability, and those of so many of the most probable tokens.
    pub logprobs: Option<u8>,
    pub constraint: Option<Constraint>,
    pub terms: Terms,
}

/// What an answer continues.
#[derive(Debug, Serialize, Deserialize)]
pub enum Prompt {
    /// Rendered by the model's chat template.
    Chat(Conversation),
    /// Read as it is.
    Raw(Input),
}

/// Texts to embed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Embed {
    pub attempt: AttemptId,
    pub inputs: Vec<Input>,
    /// Length of the vectors; none: the model's own.
    pub dimensions: Option<u32>,
    /// When the vectors stop being of use.
    pub deadline: Option<MonotonicNs>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum FromEngine {
    Loading {
        percent: u8,
    },
    Ready(EngineFacts),
    /// The engine cannot work with this file or these settings; it exits.
    LoadFailed {
        reason: String,
    },
    /// The attempt has a slot, since `at`.
    Admitted {
        attempt: AttemptId,
        at: MonotonicNs,
        /// Turns left out so that the rest fits.
        dropped_turns: u32,
    },
    /// The vector of the attempt's next text.
    Vector {
        attempt: AttemptId,
        vector: Vec<f32>,
    },
    /// One batch was evaluated; `pieces` is what may be sent on because of it, `logprobs` tells of the same tokens.
    Step {
        report: StepReport,
        pieces: Vec<(AttemptId, Piece)>,
        logprobs: Vec<(AttemptId, Vec<TokenLogprobs>)>,
        /// How sure the model was of the first tokens of each answer.
        confidences: Vec<(AttemptId, TokenConfidence)>,
    },
    /// The last word about an attempt.
    Closed {
        attempt: AttemptId,
        outcome: Outcome,
    },
}

/// What a loaded engine can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// Per slot.
    pub context_tokens: u32,
    pub slots: u32,
    /// The GGUF brings a chat template, or the config does; if not, it only continues raw prompts.
    pub has_chat_template: bool,
    /// Conversations with tools fit its template, by its own means or by the fallback.
    pub takes_tools: bool,
    /// Architecture, parameters and size, for a log line.
    pub description: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Finished {
        reason: FinishReason,
        counts: Counts,
    },
    Refused(Refusal),
    Cancelled,
    /// Its deadline came first.
    Expired,
}

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub prompt_tokens: u32,
    pub cached_tokens: u32,
    /// Every token sampled, the one that ended the turn included.
    pub completion_tokens: u32,
    /// Those of them that were reasoning.
    pub reasoning_tokens: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    Scheduler(Rejection),
    /// There is no chat template to write a conversation with.
    NoChatTemplate,
    /// The model's template does not take these turns, in its own words.
    Template(String),
    /// A prompt's token that is not in the vocabulary of so many.
    UnknownToken {
        token: u32,
        vocabulary: u32,
    },
    /// `logit_bias` names a token that the vocabulary of so many does not have.
    UnknownBias {
        token: Token,
        vocabulary: u32,
    },
    /// The answer cannot have the form asked for.
    Grammar(GrammarError),
    /// Calls of the tool in this place, which is strict, cannot keep to its schema.
    Tool {
        place: usize,
        error: GrammarError,
    },
    /// The model's vectors are shorter than asked for.
    Dimensions {
        most: u32,
    },
    /// The model gives vectors and text was asked for, or the other way round.
    OtherTask,
}

/// A frame that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes is over the limit of {MAX_FRAME}")]
    TooLong { bytes: usize },
    #[error("a frame was not understood: {0}")]
    Malformed(#[from] postcard::Error),
    #[error("the engine's socket failed: {0}")]
    Socket(#[from] io::Error),
}

/// Encodes a message without its length.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let bytes = postcard::to_stdvec(message)?;
    if bytes.len() > MAX_FRAME {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Appends a whole frame, length and message.
pub fn append_frame<M: Serialize>(buffer: &mut Vec<u8>, message: &M) -> Result<(), FrameError> {
    let bytes = encode(message)?;
    let length =
        u32::try_from(bytes.len()).map_err(|_| FrameError::TooLong { bytes: bytes.len() })?;
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(&bytes);
    Ok(())
}

pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, FrameError> {
    Ok(postcard::from_bytes(bytes)?)
}

/// Reads one frame, blocking; `None` when the other end is gone.
pub fn read_frame<M: DeserializeOwned>(socket: &mut impl Read) -> Result<Option<M>, FrameError> {
    let mut length = [0; HEADER];
    match socket.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > MAX_FRAME {
        return Err(FrameError::TooLong { bytes });
    }
    let mut message = vec![0; bytes];
    socket.read_exact(&mut message)?;
    Ok(Some(decode(&message)?))
}

#[cfg(test)]
mod tests {
    use super::super::conversation::Turn;
    use super::*;
    use crate::openai::Role;

    #[test]
    fn frames_survive_the_way_and_the_end_is_seen() {
        let mut wire = Vec::new();
        append_frame(&mut wire, &ToEngine::Cancel(AttemptId(7))).unwrap();
        let submission = Submission {
            attempt: AttemptId(8),
            prompt: Prompt::Chat(Conversation {
                turns: vec![Turn::new(Role::Developer, "be brief")],
                tools: None,
                variables: String::new(),
            }),
            sampling: Sampling { temperature: 0.5, top_p: 0.9, seed: 3, ..Sampling::default() },
            output_limit: 5,
            stop: vec!["\n".into()],
            ignore_eos: false,
            logprobs: None,
            constraint: None,
            terms: Terms::default(),
        };
        append_frame(&mut wire, &ToEngine::Submit(submission)).unwrap();
        let mut wire = wire.as_slice();
        let first: ToEngine = read_frame(&mut wire).unwrap().unwrap();
        assert!(matches!(first, ToEngine::Cancel(AttemptId(7))));
        let second: ToEngine = read_frame(&mut wire).unwrap().unwrap();
        let ToEngine::Submit(submission) = second else { panic!("a submission") };
        let Prompt::Chat(Conversation { turns, .. }) = submission.prompt else {
            panic!("a conversation")
        };
        assert_eq!((turns[0].role, submission.output_limit), (Role::Developer, 5));
        assert!(read_frame::<ToEngine>(&mut wire).unwrap().is_none());
    }

    #[test]
    fn an_endless_frame_is_refused_before_it_is_read() {
        let wire = u32::MAX.to_be_bytes();
        let error = read_frame::<ToEngine>(&mut wire.as_slice()).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(matches!(decode::<ToEngine>(&[250, 1, 2]), Err(FrameError::Malformed(_))));
    }
}
