//! Why a request cannot be evaluated.

use crate::backends::llama::engine::helper::HelperError;
use crate::backends::llama::engine::intake::interrupt::Stopped;
use crate::backends::llama::wire::outcome::Refusal;

/// Why a request did not become a command.
#[derive(Debug)]
pub(crate) enum Unprepared {
    Refused(Refusal),
    Stopped(Stopped),
    /// It takes longer than a usual request.
    TooLong,
    /// The engine cannot go on.
    Fault(String),
}

impl Unprepared {
    pub(super) fn of_trial(error: &HelperError) -> Self {
        match error {
            HelperError::Stopped(stopped) => Self::Stopped(*stopped),
            HelperError::TooLong | HelperError::Died => Self::TooLong,
            HelperError::Start(_) => Self::Fault(error.to_string()),
        }
    }

    pub(super) fn of_rendering(error: &HelperError, is_final: bool) -> Self {
        match error {
            HelperError::Stopped(stopped) => Self::Stopped(*stopped),
            HelperError::TooLong if !is_final => Self::TooLong,
            HelperError::TooLong | HelperError::Died => Self::Refused(Refusal::TemplateLimit),
            HelperError::Start(_) => Self::Fault(error.to_string()),
        }
    }
}

impl From<Refusal> for Unprepared {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Stopped> for Unprepared {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}
