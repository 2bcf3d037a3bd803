//! Shadow judging: another model's score of a share of the answers, after they were given.
//!
//! Off the request path: jobs wait in a bounded queue for one task of the app. The judge's work has
//! low priority and is booked as overhead of the models that do it, never to a request. Texts stay
//! in memory only while a job waits or runs.

pub mod answer_capture;
pub mod call;
pub mod config;
pub mod prompts;
pub mod queue;
pub mod worker;

pub use config::{Config, Mode};
