//! Pieces of an answer: text, reasoning and tool calls.

use serde::{Deserialize, Serialize};

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    Text(String),
    Reasoning(String),
    /// Start of a tool call; calls are numbered from 0.
    Call {
        index: u32,
        name: String,
    },
    /// More of the call's arguments, which are JSON text.
    Arguments {
        index: u32,
        text: String,
    },
}

impl Piece {
    /// Appends `next` if it is of the same kind; returns it otherwise.
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
