//! Frames between gateway and engine process: a big-endian u32 length, then a postcard-encoded
//! message.
//!
//! Both ends are the same binary, so there is no version. Lengths are bounded, so that neither end
//! can make the other allocate without limit. A closed socket means that the other process has
//! ended.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::constraint::Constraint;
use super::conversation::Conversation;
use super::logprobs::TokenLogprobs;
use super::outcome::Outcome;
use super::piece::Piece;
use super::sampling::Sampling;
use super::settings::EngineSettings;
use super::step::StepReport;
use crate::backends::backend::TokenConfidence;
use crate::backends::scheduling_options::SchedulingOptions;
use crate::openai::Input;
use crate::units::{AttemptId, MonotonicNs};

/// Maximum message length in bytes: enough for a prompt of millions of tokens.
pub const MAX_FRAME: usize = 32 << 20;

/// Bytes of a frame's length field.
const HEADER: usize = size_of::<u32>();

#[derive(Debug, Serialize, Deserialize)]
pub enum ToEngine {
    /// Sent once, as the first frame.
    Load(EngineSettings),
    Submit(Submission),
    /// For engines with an embedding model.
    Embed(Embed),
    /// The engine replies with `Closed` in every state of the attempt.
    Cancel(AttemptId),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Submission {
    pub attempt: AttemptId,
    pub prompt: Prompt,
    pub sampling: Sampling,
    pub output_limit: u32,
    pub stop: Vec<String>,
    /// Continue past the end of the model's turn.
    pub ignore_eos: bool,
    /// Report each token's log-probability and those of this many most probable tokens.
    pub logprobs: Option<u8>,
    pub constraint: Option<Constraint>,
    /// The model does not end its turn before this many tokens.
    pub least_tokens: u32,
    pub terms: SchedulingOptions,
}

/// The prompt of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Prompt {
    /// Rendered with the model's chat template.
    Chat(Conversation),
    /// Tokenised as it is.
    Raw(Input),
}

/// Texts to embed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Embed {
    pub attempt: AttemptId,
    pub inputs: Vec<Input>,
    /// Length of the vectors; `None` for the model's own.
    pub dimensions: Option<u32>,
    /// Engines ignore the priority.
    pub terms: SchedulingOptions,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum FromEngine {
    Loading {
        percent: u8,
    },
    Ready(EngineFacts),
    /// The file or the settings are unusable; the process exits.
    LoadFailed {
        reason: String,
    },
    /// A request is being prepared; sent so that the engine does not seem to hang.
    Preparing,
    /// The attempt was checked and waits for a slot: it will not be refused for its prompt.
    Accepted(AttemptId),
    /// The attempt got a slot at `at`.
    Admitted {
        attempt: AttemptId,
        at: MonotonicNs,
        /// Turns dropped so that the conversation fits.
        dropped_turns: u32,
    },
    /// The vector of the attempt's next text.
    Vector {
        attempt: AttemptId,
        vector: Vec<f32>,
    },
    /// One evaluated batch: its report, and the output that it releases. `logprobs` are of the
    /// tokens of `pieces`.
    Step {
        report: StepReport,
        pieces: Vec<(AttemptId, Piece)>,
        logprobs: Vec<(AttemptId, Vec<TokenLogprobs>)>,
        /// Confidence in the first tokens of each answer.
        confidences: Vec<(AttemptId, TokenConfidence)>,
    },
    /// The last message about an attempt.
    Closed {
        attempt: AttemptId,
        outcome: Outcome,
    },
}

/// Properties of a loaded engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// Per slot.
    pub context_tokens: u32,
    pub slots: u32,
    /// The GGUF or the config has a chat template; without one, the engine only continues raw
    /// prompts.
    pub has_chat_template: bool,
    /// The template accepts tools, in its own format or by the fallback.
    pub takes_tools: bool,
    /// Weight tensors packed for Wattgate's own kernels; 0 if they are off or support none of them.
    pub packed_tensors: u32,
    /// Architecture, parameters and size, for the log.
    pub description: String,
}

/// Errors of writing or reading frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes exceeds the limit of {MAX_FRAME}")]
    TooLong { bytes: usize },
    #[error("invalid frame: {0}")]
    Malformed(#[from] postcard::Error),
    #[error("engine socket failed: {0}")]
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

/// Writes one frame, blocking.
pub fn write_frame<M: Serialize>(socket: &mut impl Write, message: &M) -> Result<(), FrameError> {
    let mut frame = Vec::with_capacity(HEADER + 64);
    append_frame(&mut frame, message)?;
    Ok(socket.write_all(&frame)?)
}

pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, FrameError> {
    Ok(postcard::from_bytes(bytes)?)
}

/// Reads one frame, blocking; `None` if the other end is closed.
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
    use super::*;
    use crate::backends::llama::wire::conversation::Turn;
    use crate::openai::Role;

    #[test]
    fn frames_round_trip_and_the_end_is_none() {
        let mut wire = Vec::new();
        append_frame(&mut wire, &ToEngine::Cancel(AttemptId(7))).unwrap();
        let submission = Submission {
            attempt: AttemptId(8),
            prompt: Prompt::Chat(Conversation {
                turns: vec![Turn::new(Role::Developer, "be brief")],
                tools: None,
                variables: String::new(),
                continues: false,
            }),
            sampling: Sampling { temperature: 0.5, top_p: 0.9, seed: 3, ..Sampling::default() },
            output_limit: 5,
            stop: vec!["\n".into()],
            ignore_eos: false,
            logprobs: None,
            constraint: None,
            least_tokens: 0,
            terms: SchedulingOptions::default(),
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
