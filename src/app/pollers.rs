//! The tasks that fetch figures of sensors and of the grid over HTTP.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::energy::polling::poller::Poller;

/// Running poll tasks. Dropping aborts them.
pub struct Pollers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Pollers {
    pub fn start(pollers: Vec<Poller>) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for poller in pollers {
            tasks.spawn(poller.run(stop.clone()));
        }
        Self { tasks, stop }
    }

    /// Ends all polls, also those that wait for a response, and waits for the tasks.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}
