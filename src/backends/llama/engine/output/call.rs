//! Character-by-character reader of one tool call; emits its arguments as JSON while they arrive.
//!
//! Pure. Text that is not a call of a known tool is returned unchanged.

pub(crate) mod expected;
mod named;
mod object;
mod parameters;
mod scan;

use self::expected::{ExpectedCalls, Read};
use self::named::NamedCall;
use self::object::ObjectCall;
use self::parameters::ParametersCall;
use crate::backends::llama::engine::tool_format::CallFormat;

/// One call that is being read.
#[derive(Debug)]
pub(super) struct CallReader {
    /// The tag before the call; becomes text if this is not a call.
    pub(super) opener: &'static str,
    /// Everything read since, until the call has begun.
    pub(super) read: String,
    has_begun: bool,
    spelled: Spelled,
}

#[derive(Debug)]
enum Spelled {
    Object(ObjectCall),
    Named(NamedCall),
    Parameters(ParametersCall),
}

impl CallReader {
    /// `opener` is empty if the call has no tag; `in_array` if it is the first of an array.
    pub(super) fn new(format: CallFormat, opener: &'static str, in_array: bool) -> Self {
        let spelled = match format {
            CallFormat::Hermes | CallFormat::Llama3 | CallFormat::Mistral => {
                Spelled::Object(ObjectCall::new(in_array))
            }
            CallFormat::MistralArgs => Spelled::Named(NamedCall::default()),
            CallFormat::QwenCoder => Spelled::Parameters(ParametersCall::default()),
        };
        Self { opener, read: String::new(), has_begun: false, spelled }
    }

    /// Whether the call follows a tag, which has no other meaning.
    pub(super) fn is_tagged(&self) -> bool {
        !self.opener.is_empty()
    }

    /// Whether the call has been sent to the client.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The text read so far, if it can only be a call and its arguments have not begun.
    pub(super) fn surely_begun(&self, known: &[String]) -> Option<&str> {
        if self.has_begun {
            return None;
        }
        match &self.spelled {
            Spelled::Object(call) => call.surely_begun(&self.read, self.is_tagged(), known),
            Spelled::Named(_) => Some(self.read.as_str()).filter(|read| !read.contains('[')),
            // Neither opener has another meaning.
            Spelled::Parameters(_) => Some(&self.read),
        }
    }

    pub(super) fn feed(&mut self, char: char, calls: &ExpectedCalls) -> Read {
        if !self.has_begun {
            self.read.push(char);
        }
        let read = match &mut self.spelled {
            Spelled::Object(call) => call.feed(char, &self.read, &calls.names),
            Spelled::Named(call) => call.feed(char, &self.read, &calls.names),
            Spelled::Parameters(call) => call.feed(char, &self.read, calls),
        };
        self.has_begun |= matches!(read, Read::Begun { .. } | Read::Whole { .. });
        read
    }
}
