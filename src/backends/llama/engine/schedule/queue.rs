//! Queue of requests without a slot. Pure.
//!
//! [`super::turns`] chooses among them. A request is overtaken by a bounded number of later ones of
//! its own client, and other clients get at most a turn each between two of its client's.

use super::request::Request;
use super::turns::{self, Time, Waiting};
use crate::units::{AttemptId, MonotonicNs};

/// The requests that wait, in the order of their arrival.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: Vec<Entry>,
    now: Time,
}

#[derive(Debug)]
struct Entry {
    waiting: Waiting,
    request: Request,
}

impl Queue {
    pub(crate) fn push(&mut self, request: Request) {
        let client = request.terms.client;
        let waiting = || self.entries.iter().map(|entry| &entry.waiting);
        let of_client = waiting().find(|other| other.client == client);
        let of_network = waiting().find(|other| other.client.network == client.network);
        let waiting = Waiting {
            client,
            priority: request.terms.priority,
            arrived: self.now,
            client_served: of_client.map_or(Time::default(), |other| other.client_served),
            network_served: of_network.map_or(Time::default(), |other| other.network_served),
        };
        self.now.arrivals += 1;
        self.entries.push(Entry { waiting, request });
    }

    /// The next request to get a slot.
    pub(crate) fn first(&self) -> Option<&Request> {
        self.next().map(|index| &self.entries[index].request)
    }

    pub(crate) fn pop(&mut self) -> Option<Request> {
        let Entry { waiting: served, request } = self.entries.remove(self.next()?);
        self.now.departures += 1;
        for Entry { waiting, .. } in &mut self.entries {
            if waiting.client.network == served.client.network {
                waiting.network_served = self.now;
                if waiting.client == served.client {
                    waiting.client_served = self.now;
                }
            }
        }
        Some(request)
    }

    fn next(&self) -> Option<usize> {
        turns::next(self.entries.iter().map(|entry| &entry.waiting))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Removes an attempt; false if unknown.
    pub(crate) fn remove(&mut self, attempt: AttemptId) -> bool {
        let entry = self.entries.iter().position(|entry| entry.request.attempt == attempt);
        entry.map(|entry| self.entries.remove(entry)).is_some()
    }

    /// Removes and returns attempts past their deadline.
    pub(crate) fn expire(&mut self, now: MonotonicNs) -> Vec<AttemptId> {
        let late = |entry: &mut Entry| entry.request.terms.deadline.is_some_and(|at| at <= now);
        self.entries.extract_if(.., late).map(|entry| entry.request.attempt).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::hash::Hash;

    use proptest::prelude::*;

    use super::*;
    use crate::backends::llama::engine::schedule::turns::HEAD_START;
    use crate::backends::scheduling_options::{Priority, SchedulingOptions};
    use crate::shares::Client;

    const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    fn request(attempt: u64, priority: Priority, client: Client) -> Request {
        let terms = SchedulingOptions { priority, deadline: None, client };
        Request { attempt: AttemptId(attempt), prompt: vec![1], output_limit: 1, terms }
    }

    fn client(network: u64, key: u64) -> Client {
        Client { network, key: Some(key) }
    }

    fn order(mut queue: Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|request| request.attempt.0).collect()
    }

    #[test]
    fn urgent_requests_go_first_and_equal_ones_in_order() {
        let mut queue = Queue::default();
        let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Normal];
        for (attempt, priority) in (0..).zip(priorities) {
            queue.push(request(attempt, priority, Client::default()));
        }
        assert_eq!(order(queue), [2, 1, 3, 0]);
    }

    #[test]
    fn clients_take_turns_whatever_each_has_sent() {
        let mut queue = Queue::default();
        // Ten of one client, then two of another address, and one of another key behind the first.
        for attempt in 0..10 {
            queue.push(request(attempt, Priority::Normal, client(1, 1)));
        }
        queue.push(request(20, Priority::Normal, client(2, 1)));
        queue.push(request(21, Priority::Normal, client(2, 1)));
        queue.push(request(30, Priority::Normal, client(1, 2)));
        assert_eq!(order(queue)[..8], [0, 20, 30, 21, 1, 2, 3, 4]);
    }

    #[test]
    fn expired_requests_are_removed_and_others_stay() {
        let mut queue = Queue::default();
        for (attempt, deadline) in [(0, Some(5)), (1, None), (2, Some(9))] {
            let mut request = request(attempt, Priority::Normal, Client::default());
            request.terms.deadline = deadline.map(MonotonicNs);
            queue.push(request);
        }
        assert_eq!(queue.expire(MonotonicNs(4)), []);
        assert_eq!(queue.expire(MonotonicNs(5)), [AttemptId(0)]);
        assert!(queue.remove(AttemptId(2)) && !queue.remove(AttemptId(2)));
        assert_eq!((queue.len(), order(queue)), (1, vec![1]));
    }

    /// What happens at a queue.
    #[derive(Clone, Copy, Debug)]
    enum Op {
        Push {
            network: u64,
            key: u64,
            priority: usize,
        },
        Pop,
        /// A client leaves the n-th of those that wait.
        Leave(usize),
    }

    fn ops(priorities: usize) -> impl Strategy<Value = Vec<Op>> {
        let push = (0..4_u64, 0..3_u64, 0..priorities)
            .prop_map(|(network, key, priority)| Op::Push { network, key, priority });
        let op = prop_oneof![4 => push, 3 => Just(Op::Pop), 1 => (0..8_usize).prop_map(Op::Leave)];
        prop::collection::vec(op, 1..200)
    }

    /// One slot that was given, and the requests that waited beside.
    struct Service {
        attempt: u64,
        client: Client,
        waiting: BTreeMap<u64, Client>,
    }

    /// Plays the events, then serves the rest.
    fn services(ops: Vec<Op>) -> Vec<Service> {
        let (mut queue, mut waiting, mut services) =
            (Queue::default(), BTreeMap::new(), Vec::new());
        let serve = |queue: &mut Queue, waiting: &mut BTreeMap<u64, Client>| {
            let attempt = queue.pop()?.attempt.0;
            let client = waiting.remove(&attempt)?;
            Some(Service { attempt, client, waiting: waiting.clone() })
        };
        for (attempt, op) in (0..).zip(ops) {
            match op {
                Op::Push { network, key, priority } => {
                    waiting.insert(attempt, client(network, key));
                    queue.push(request(attempt, PRIORITIES[priority], client(network, key)));
                }
                Op::Pop => services.extend(serve(&mut queue, &mut waiting)),
                Op::Leave(index) => {
                    let leaving =
                        waiting.keys().copied().min_by_key(|&one| one.abs_diff(index as u64));
                    if let Some(leaving) = leaving {
                        assert!(queue.remove(AttemptId(leaving)));
                        waiting.remove(&leaving);
                    }
                }
            }
        }
        services.extend(std::iter::from_fn(|| serve(&mut queue, &mut waiting)));
        assert!(waiting.is_empty() && queue.len() == 0);
        services
    }

    /// The first request that waited while its group, by `group`, was passed over for one that got
    /// a second slot. Only requests of the same `among` are compared.
    fn passed_over<G: Hash + Eq, A: Eq>(
        services: &[Service],
        group: impl Fn(&Client) -> G,
        among: impl Fn(&Client) -> A,
    ) -> Option<u64> {
        let mut behind: HashMap<G, HashMap<u64, Client>> = HashMap::new();
        for Service { client, waiting, .. } in services {
            let served = group(client);
            let mut passed_over = behind.remove(&served).into_iter().flatten();
            // Those that have left miss nothing.
            if let Some((attempt, _)) = passed_over.find(|(one, _)| waiting.contains_key(one)) {
                return Some(attempt);
            }
            for others in behind.values_mut() {
                others.retain(|attempt, other| {
                    group(other) != served && waiting.contains_key(attempt)
                });
            }
            let others = waiting.iter().filter(|(_, other)| among(other) == among(client));
            let others = others.filter(|(_, other)| group(other) != served);
            let others = others.map(|(attempt, other)| (*attempt, *other)).collect();
            behind.insert(served, others);
        }
        None
    }

    proptest! {
        /// Of requests of equal priority, one of each network gets a slot before any other network
        /// gets its second, and within a network one of each client.
        #[test]
        fn no_client_gets_two_turns_while_another_waits_for_one(ops in ops(1)) {
            let services = services(ops);
            prop_assert_eq!(passed_over(&services, |client| client.network, |_| ()), None);
            let clients = passed_over(&services, |client| *client, |client| client.network);
            prop_assert_eq!(clients, None);
        }

        /// With any number of urgent requests, fewer than two head starts of later ones of the same
        /// client overtake a request.
        #[test]
        fn no_request_starves(ops in ops(3)) {
            let services = services(ops);
            for (place, one) in services.iter().enumerate() {
                let later = services[..place].iter().filter(|earlier| {
                    earlier.attempt > one.attempt && earlier.client == one.client
                });
                prop_assert!((later.count() as u64) < 2 * HEAD_START);
            }
        }
    }
}
