//! Stretches of an answer: text, reasoning and tool calls.

use serde::{Deserialize, Serialize};

/// A stretch of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    Text(String),
    Reasoning(String),
    /// A call of a tool begins; calls are numbered from 0.
    Call {
        index: u32,
        name: String,
    },
    /// More of its arguments, which are JSON text.
    Arguments {
        index: u32,
        text: String,
    },
}

impl Piece {
    /// Joins `next` to this one if they are of a kind; gives it back if not.
    pub fn join(&mut self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Text(text), Self::Text(more))
            | (Self::Reasoning(text), Self::Reasoning(more)) => text.push_str(&more),
            (Self::Arguments { index, text }, Self::Arguments { index: same, text: more })
                if *index == same =>
            {
                text.push_str(&more);
            }
            (_, next) => return Some(next),
        }
        None
    }
}
