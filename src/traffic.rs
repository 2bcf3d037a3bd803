//! What happened: one record per request, written off the serving path, and the reader that
//! everything offline uses.

pub mod config;
pub mod feedback;
pub mod reader;
pub mod record;
pub mod writer;
pub mod past;

pub use config::{Config, PromptStorage};
pub use feedback::{Aside, Feedback, Sign, Signal, Source, Verdicts};
pub use reader::{Line, LogError, read_log};
pub use record::{Attempt, AttemptOutcome, Outcome, Prompt, Receipt, Record, Shadow, Timings};
pub use writer::{Entry, LogWriter, RecordSink};
