//! The meter: one thread that reads the sensors at a fixed cadence, and the handle through which
//! engines and requests report to it.
//!
//! All effects of metering are in this room: the thread, the clock, the locks. What follows from
//! readings and reports is decided in [`attribution`](super::attribution), which is pure.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc;

use super::attribution::Settled;
use super::config::Config;
use super::polling::poller::Poller;
use state::MeterState;
use ticker::Ticker;

mod attempt;
mod error;
mod handle;
mod probe;
mod probes;
mod state;
mod suspend;
mod ticker;

pub use attempt::{AttemptObserver, OpenAttempt, PendingAttempt};
pub use error::MeterError;
pub use handle::MeterHandle;

/// The running meter. Owns its thread: stopping or dropping it takes a last reading and joins.
#[derive(Debug)]
pub struct Meter {
    handle: MeterHandle,
    pollers: Vec<Poller>,
    /// Dropped to stop the thread.
    running: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Settlements that may wait in the channel; when it is full, further attempts stay in the
/// attribution until it has room.
const SETTLEMENTS: usize = 1024;

impl Meter {
    /// Selects the sensors and starts reading them. The receiver yields settlements until the meter
    /// stops.
    pub fn start(config: &Config) -> Result<(Self, mpsc::Receiver<Settled>), MeterError> {
        let (state, pollers) = MeterState::new(config)?;
        let state = Arc::new(state);
        let (running, stopped) = sync_channel(0);
        let (sender, settlements) = mpsc::channel(SETTLEMENTS);
        let cadence = Duration::from_millis(config.cadence_ms);
        let mut ticker = Ticker::new(Arc::clone(&state), sender);
        let thread = thread::Builder::new()
            .name("energy-meter".to_owned())
            .spawn(move || ticker.run(cadence, &stopped))
            .map_err(MeterError::Thread)?;
        let handle = MeterHandle::new(state);
        let meter = Self { handle, pollers, running: Some(running), thread: Some(thread) };
        Ok((meter, settlements))
    }

    pub fn handle(&self) -> MeterHandle {
        self.handle.clone()
    }

    /// Takes the tasks that feed sensors and rates over HTTP. The caller must run them as long as
    /// the meter.
    pub fn take_pollers(&mut self) -> Vec<Poller> {
        std::mem::take(&mut self.pollers)
    }

    /// Takes a last reading, settles what is final by then and joins the thread. Does not wait for
    /// the next tick.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the meter thread panicked");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.join();
    }
}

#[cfg(test)]
mod tests;
