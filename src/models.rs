//! Model files: sources, places on disk, downloads, integrity, and the catalogue of known models.
//!
//! Handles files only; reading and running a model is up to the backends.

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
