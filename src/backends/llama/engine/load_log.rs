//! What llama.cpp complains of: its log is the only place where it says why it could not load a model.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The target of what the binding passes on of llama.cpp's log.
const TARGET: &str = "llama-cpp-2";

/// Later ones only say that something failed because of it.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Remembers the first error that llama.cpp logs.
#[derive(Debug)]
pub struct LoadLog;

/// That error, if there was one.
pub(crate) fn first() -> Option<String> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl<S: Subscriber> Layer<S> for LoadLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() == Level::ERROR && metadata.target() == TARGET {
            event.record(&mut Message);
        }
    }
}

struct Message;

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            let said = value.trim().trim_start_matches("error loading model: ");
            let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| said.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
