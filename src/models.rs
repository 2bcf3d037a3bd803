//! Model files: where they come from (`Source`), where they live on disk, how they get there, and which there are.
//!
//! Files only. What is inside a model, and running it, is the backends' business.

mod catalogue;
mod check;
mod choice;
mod failure;
mod fetched;
mod hub;
mod joined;
mod machine;
mod parts;
mod progress;
mod pull;
mod remove;
mod source;
mod verify;
mod wheel;

pub use catalogue::{Confidence, Entry, ModelKind, catalogue, known};
pub use check::{NotSha256, Sha256, State, state};
pub use choice::{Choice, Gpu, GpuMemory, Machine, choose};
pub use failure::PullError;
pub use machine::{Roots, memory_bytes};
pub use parts::RangeError;
pub use progress::Progress;
pub use pull::{Pulled, pull};
pub use remove::{RemoveError, removable_bytes, remove};
pub use source::{HubFile, Source, SourceError, WheelFile, resolve};
pub use verify::{Verdict, verify};
