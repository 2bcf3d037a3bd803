//! The HTTP API: request and answer formats, streams, errors, scheduling headers, metrics.

mod chat;
mod completions;
mod connections;
mod early_head;
mod constraints;
mod edge;
mod embeddings;
mod exchange;
mod feedback;
mod hostile_schemas;
mod lenient;
mod local_chat;
mod metrics;
mod output;
mod scheduling;
mod templates;
mod tool_formats;
mod tools;
