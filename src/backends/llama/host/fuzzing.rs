//! What the fuzz targets in `fuzz/` call here: requests as messages to the engine. Compiled into
//! no other build; decides nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::request::message;
use crate::backends::backend::{ErrorKind, Job};
use crate::backends::llama::config::Config;
use crate::backends::llama::wire::protocol::ToEngine;
use crate::backends::scheduling_options::SchedulingOptions;
use crate::openai::Request;
use crate::units::AttemptId;

/// The message for a request's first choice.
pub fn to_engine(request: Arc<Request>) -> Result<ToEngine, ErrorKind> {
    let (attempt, terms) = (AttemptId(1), SchedulingOptions::default());
    message(&Job { attempt, request, body: Bytes::new(), terms }, &Config::default())
}
