//! The order in which requests that wait get a slot, one pick at a time. Pure.
//!
//! Addresses take turns, behind one address keys do, and the requests of one client go by arrival.
//! A turn begins with the client's last slot, or with its request if it had none since, and the
//! oldest is next: a client that was just served, or has just come, goes behind those that wait. A
//! priority is a head start in arrivals.

use std::collections::HashMap;
use std::hash::Hash;

use crate::backends::scheduling_options::Priority;
use crate::shares::Client;

/// Arrivals by which a priority is ahead of the next lower one.
pub(crate) const HEAD_START: u64 = 16;

/// A point in the order of events at the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    pub(crate) arrivals: u64,
    pub(crate) departures: u64,
}

/// What decides about a request that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) client: Client,
    pub(crate) priority: Priority,
    pub(crate) arrived: Time,
    /// When a request of its client last got a slot while others of it waited.
    pub(crate) client_served: Time,
    /// The same of its network.
    pub(crate) network_served: Time,
}

impl Waiting {
    fn handicap(&self) -> u64 {
        match self.priority {
            Priority::High => 0,
            Priority::Normal => HEAD_START,
            Priority::Low => 2 * HEAD_START,
        }
    }

    /// The later of its arrival and what happened since, with its handicap.
    fn rank(&self, served: Time) -> (Time, u64) {
        let since = self.arrived.max(served);
        (Time { arrivals: since.arrivals + self.handicap(), ..since }, self.arrived.arrivals)
    }
}

/// Index of the request that gets the next slot; `None` if none waits.
pub(crate) fn next<'a>(waiting: impl IntoIterator<Item = &'a Waiting>) -> Option<usize> {
    let all = waiting.into_iter().enumerate();
    let of_clients = firsts(all, |one| one.client, |one| one.rank(Time::default()));
    let of_networks =
        firsts(of_clients, |one| one.client.network, |one| one.rank(one.client_served));
    let first = firsts(of_networks, |_| (), |one| one.rank(one.network_served)).next();
    first.map(|(index, _)| index)
}

/// The first of each group.
fn firsts<'a, K: Hash + Eq, R: Ord>(
    waiting: impl Iterator<Item = (usize, &'a Waiting)>,
    group: impl Fn(&Waiting) -> K,
    rank: impl Fn(&Waiting) -> R,
) -> impl Iterator<Item = (usize, &'a Waiting)> {
    let mut firsts: HashMap<K, (usize, &Waiting)> = HashMap::new();
    for (index, one) in waiting {
        firsts
            .entry(group(one))
            .and_modify(|first| {
                if rank(one) < rank(first.1) {
                    *first = (index, one);
                }
            })
            .or_insert((index, one));
    }
    firsts.into_values()
}
