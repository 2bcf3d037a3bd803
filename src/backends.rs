//! Who can answer a request: local llama.cpp engines and OpenAI-compatible servers, behind one trait.
//!
//! A backend answers; it does not choose, price or log. It knows nothing of HTTP on the client's side.

pub mod backend;
pub mod chunks;
pub mod cloud;
pub mod llama;
pub mod terms;

pub use backend::{
    Backend, BackendError, ErrorKind, ErrorSource, Event, EventStream, Health, Job, TokenConfidence,
};
pub use chunks::Chunks;
pub use terms::{Priority, Terms};
