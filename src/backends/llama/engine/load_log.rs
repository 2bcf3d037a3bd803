//! Capture of llama.cpp's first error: its log is the only place with the reason of a failed load.

use std::fmt::Debug;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The tracing target of llama.cpp's log.
const TARGET: &str = "llama-cpp-2";

/// The first error; later ones are its consequences.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Tracing layer that stores the first error of llama.cpp.
#[derive(Debug)]
pub struct LoadLog;

/// The stored error.
pub(crate) fn first() -> Option<String> {
    FIRST.lock().clone()
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
            let message = value.trim().trim_start_matches("error loading model: ");
            let mut first = FIRST.lock();
            first.get_or_insert_with(|| message.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
