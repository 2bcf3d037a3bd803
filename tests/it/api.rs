//! The HTTP API: request and answer formats, streams, errors, scheduling headers, metrics.

mod aliases;
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
mod limits;
mod local_chat;
mod long_texts;
mod messages;
mod metrics;
mod output;
mod responses;
mod responses_kept;
mod scheduling;
mod stalls;
mod templates;
mod tool_formats;
mod tools;
