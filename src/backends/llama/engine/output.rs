//! From sampled tokens to the pieces of an answer: characters, reasoning, tool calls and stop strings.

pub(super) mod call;
pub(super) mod parser;
pub(super) mod stream;
pub(super) mod utf8_stops;
