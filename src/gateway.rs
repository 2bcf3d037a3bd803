//! The only module that knows HTTP: routes, handlers, errors, and the way of one request from decision to books.
//!
//! It holds no configuration of other modules and starts no tasks but those of its connections; `app` builds it.

pub mod admin;
pub mod asked;
pub mod books;
pub mod chat;
pub mod choices;
pub mod completion;
pub mod config;
pub mod conversations;
pub mod embedding;
pub mod error;
pub mod exchange;
pub mod feedback;
pub mod footprint;
mod gauges;
pub mod history;
pub mod hindsight;
pub mod info;
pub mod judge;
pub mod learnt;
pub mod model;
pub mod plan;
pub mod ranges;
pub mod recents;
mod remote;
pub mod reply;
pub mod request;
pub mod routes;
pub mod server;
pub mod state;
pub mod stream;
pub mod tally;
pub mod terms;
pub mod watch;

pub use books::Books;
pub use config::Config;
pub use conversations::Conversations;
pub use error::ApiError;
pub use footprint::Footprint;
pub use model::{Kind, Model};
pub use server::serve;
pub use state::{Gateway, Router};
