//! The helper process: renders chat templates and tries out schemas, which a client or a model's
//! maker can make arbitrarily expensive and no library can interrupt.
//!
//! A process of its own, so that it can be killed and its memory bounded without effect on the
//! engine's answers. Holds no model.

mod pool;
mod process;
mod wire;

pub(crate) use pool::{HelperError, HelperPool};
pub(crate) use process::run;
pub(crate) use wire::{Rendering, Setup, Trial};
