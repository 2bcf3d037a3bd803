//! Backends that answer requests: local llama.cpp engines and OpenAI-compatible servers, behind one
//! trait.
//!
//! A backend answers; it does not choose, price or log. It does not know the HTTP of clients.

pub mod backend;
pub mod chunks;
pub mod cloud;
pub mod llama;
pub mod scheduling_options;

pub use backend::{
    Backend, BackendError, ErrorKind, ErrorSource, Event, EventStream, Health, Job, RequestFault,
    TokenConfidence,
};
pub use chunks::Chunks;
pub use scheduling_options::{Priority, SchedulingOptions};
