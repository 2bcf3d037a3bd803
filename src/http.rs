//! The HTTP edge: routes, request parsing, response formats and error replies.
//!
//! The only module that may name axum, http, tower or hyper. Handlers parse, call `serving`, and
//! format.

pub mod client;
pub mod config;
pub mod error;
pub mod explained;
pub mod extract;
pub mod formats;
pub mod handlers;
pub mod host;
pub mod layers;
pub mod messages;
pub mod operator;
pub mod origin;
pub mod paths;
pub mod peer;
pub mod receipt;
pub mod reply;
pub mod responses;
pub mod routes;
pub mod server;
pub mod state;
pub mod stream;
pub mod surface;
pub mod translation;

pub use config::{AdminConfig, Config};
pub use server::serve;
