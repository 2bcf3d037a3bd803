//! Model files: where they come from (`Source`), where they live on disk, how they get there, and which there are.
//!
//! Files only. What is inside a model, and running it, is the backends' business.

mod catalogue;
mod error;
mod hub;
mod integrity;
mod machine;
mod multipart;
mod progress;
mod pull;
mod pypi;
mod range_expansion;
mod recommend;
mod remove;
mod source;
mod staging;
mod verify;

pub use catalogue::{Confidence, Entry, ModelKind, catalogue, known};
pub use error::PullError;
pub use integrity::{FileState, NotSha256, Sha256, file_state};
pub use machine::{Roots, memory_bytes};
pub use progress::Progress;
pub use pull::{Pulled, pull};
pub use range_expansion::RangeError;
pub use recommend::{Gpu, GpuMemory, Machine, Recommendation, recommend};
pub use remove::{RemoveError, removable_bytes, remove};
pub use source::{HubFile, Source, SourceError, WheelFile, resolve};
pub use verify::{Verdict, verify};
