//! Queue of requests without a slot, in the order in which they get one. Pure.
//!
//! Each request draws a ticket, and priority is a head start in tickets. A request is overtaken
//! only by a bounded number of later ones, so no priority starves another.

use super::request::Request;
use crate::backends::scheduling_options::Priority;
use crate::units::{AttemptId, MonotonicNs};

/// Upper bound (exclusive) of later requests of the next higher priority that overtake a request.
pub(crate) const HEAD_START: u64 = 16;

/// A queue that priorities reorder within bounds.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Ordered by rank.
    entries: Vec<Entry>,
    tickets: u64,
}

#[derive(Debug)]
struct Entry {
    rank: u64,
    request: Request,
}

impl Queue {
    pub(crate) fn push(&mut self, request: Request) {
        let handicap = match request.terms.priority {
            Priority::High => 0,
            Priority::Normal => HEAD_START,
            Priority::Low => 2 * HEAD_START,
        };
        let rank = self.tickets + handicap;
        self.tickets += 1;
        let entry = self.entries.partition_point(|other| other.rank <= rank);
        self.entries.insert(entry, Entry { rank, request });
    }

    /// The next request to get a slot.
    pub(crate) fn first(&self) -> Option<&Request> {
        self.entries.first().map(|entry| &entry.request)
    }

    pub(crate) fn pop(&mut self) -> Option<Request> {
        (!self.entries.is_empty()).then(|| self.entries.remove(0).request)
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
    use proptest::prelude::*;

    use super::*;
    use crate::backends::scheduling_options::SchedulingOptions;

    fn request(attempt: u64, priority: Priority, deadline: Option<u64>) -> Request {
        let terms = SchedulingOptions {
            priority,
            deadline: deadline.map(MonotonicNs),
            ..SchedulingOptions::default()
        };
        Request { attempt: AttemptId(attempt), prompt: vec![1], output_limit: 1, terms }
    }

    fn order(mut queue: Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|request| request.attempt.0).collect()
    }

    #[test]
    fn urgent_requests_go_first_and_equal_ones_in_order() {
        let mut queue = Queue::default();
        let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Normal];
        for (attempt, priority) in (0..).zip(priorities) {
            queue.push(request(attempt, priority, None));
        }
        assert_eq!(order(queue), [2, 1, 3, 0]);
    }

    #[test]
    fn expired_requests_are_removed_and_others_stay() {
        let mut queue = Queue::default();
        for (attempt, deadline) in [(0, Some(5)), (1, None), (2, Some(9))] {
            queue.push(request(attempt, Priority::Normal, deadline));
        }
        assert_eq!(queue.expire(MonotonicNs(4)), []);
        assert_eq!(queue.expire(MonotonicNs(5)), [AttemptId(0)]);
        assert!(queue.remove(AttemptId(2)) && !queue.remove(AttemptId(2)));
        assert_eq!((queue.len(), order(queue)), (1, vec![1]));
    }

    proptest! {
        /// With any number of urgent requests, fewer than two head starts of later ones overtake a
        /// request.
        #[test]
        fn no_request_starves(priorities in prop::collection::vec(0..3u8, 1..200), served in 0..100usize) {
            let mut queue = Queue::default();
            let mut order = Vec::new();
            for (attempt, priority) in (0..).zip(priorities) {
                let priority = [Priority::High, Priority::Normal, Priority::Low][usize::from(priority)];
                queue.push(request(attempt, priority, None));
                if attempt % 3 == 0 && order.len() < served {
                    order.extend(queue.pop().map(|request| request.attempt.0));
                }
            }
            order.extend(std::iter::from_fn(|| queue.pop()).map(|request| request.attempt.0));
            for (entry, attempt) in order.iter().enumerate() {
                let overtakers = order[..entry].iter().filter(|&earlier| earlier > attempt).count();
                prop_assert!((overtakers as u64) < 2 * HEAD_START);
            }
        }
    }
}
