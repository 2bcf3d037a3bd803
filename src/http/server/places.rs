//! Places of connections, for which a connection waits a moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::http::client::of_peer;
use crate::http::peer::Peer;
use crate::shares::{Share, Shares, Taken};

pub(super) struct Places {
    shares: Arc<Shares>,
    freed: Notify,
}

/// One place, until it is dropped.
pub(super) struct Place {
    // Dropped before the others are woken.
    taken: Option<Taken>,
    places: Arc<Places>,
}

impl Places {
    pub(super) fn new(count: usize, share: Share) -> Arc<Self> {
        Arc::new(Self { shares: Shares::new(count as u64, share), freed: Notify::new() })
    }

    /// A place for the peer, now; `None` if all are taken, or all that the peer may take.
    pub(super) fn take(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let taken = self.shares.take(of_peer(peer), 1).ok()?;
        Some(Place { taken: Some(taken), places: Arc::clone(self) })
    }

    /// A place for the peer as soon as there is one, within this time.
    pub(super) async fn wait(self: &Arc<Self>, peer: Peer, most: Duration) -> Option<Place> {
        let place = self.take(peer);
        if place.is_some() || most.is_zero() {
            return place;
        }
        let waiting = async {
            loop {
                // Before the try, so that no place is freed unseen between the two.
                let freed = self.freed.notified();
                if let Some(place) = self.take(peer) {
                    return place;
                }
                freed.await;
            }
        };
        timeout(most, waiting).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken = None;
        self.places.freed.notify_waiters();
    }
}
