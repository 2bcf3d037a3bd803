//! The HTTP API: request and answer formats, streams, errors, scheduling headers, metrics.

mod chat;
mod completions;
mod edge;
mod embeddings;
mod feedback;
mod hostile_schemas;
mod lenient;
mod local_chat;
mod metrics;
mod output;
mod scheduling;
mod tool_formats;
mod tools;
