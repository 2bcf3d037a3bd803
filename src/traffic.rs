//! Traffic log: one record per request, written off the serving path, and the reader for all
//! offline tools.

pub mod audit;
pub mod census;
pub mod config;
pub mod export;
pub mod feedback;
pub mod reader;
pub mod record;
mod segment;
mod outage;
mod queue;
pub mod writer;
pub mod lookup;

pub use config::{Config, PromptStorage};
pub use feedback::{Annotation, Feedback, ImplicitSignal, Signal, VerdictSource, Verdicts};
pub use queue::{Entry, RecordSink};
pub use reader::{Line, LogError, read_log};
pub use record::{Attempt, AttemptOutcome, Outcome, Prompt, Receipt, Record, Shadow, Timings};
pub use writer::{LogWriter, StartError};
