//! Output of answers: from sampled tokens to characters, reasoning, tool calls and stop strings.

pub(super) mod call;
pub(super) mod parser;
pub(super) mod stream;
pub(super) mod utf8_stops;
