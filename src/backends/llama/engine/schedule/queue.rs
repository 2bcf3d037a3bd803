//! Queue of requests without a slot, in the order in which they get one. Pure.
//!
//! Each request draws a ticket, and priority is a head start in tickets. A request is overtaken
//! only by a bounded number of later ones, so no priority starves another.

use super::request::Request;
use crate::backends::terms::Priority;
use crate::units::{AttemptId, MonotonicNs};

/// Upper bound (exclusive) of later requests of the next higher priority that overtake a request.
pub(crate) const HEAD_START: u64 = 16;

/// A queue that priorities reorder within bounds.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Ordered by rank.
    places: Vec<Place>,
    tickets: u64,
}

#[derive(Debug)]
struct Place {
    rank: u64,
    request: Request,
}

impl Waiting {
    pub(crate) fn push(&mut self, request: Request) {
        let handicap = match request.terms.priority {
            Priority::High => 0,
            Priority::Normal => HEAD_START,
            Priority::Low => 2 * HEAD_START,
        };
        let rank = self.tickets + handicap;
        self.tickets += 1;
        let place = self.places.partition_point(|other| other.rank <= rank);
        self.places.insert(place, Place { rank, request });
    }

    /// The next request to get a slot.
    pub(crate) fn first(&self) -> Option<&Request> {
        self.places.first().map(|place| &place.request)
    }

    pub(crate) fn pop(&mut self) -> Option<Request> {
        (!self.places.is_empty()).then(|| self.places.remove(0).request)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Removes an attempt; false if unknown.
    pub(crate) fn remove(&mut self, attempt: AttemptId) -> bool {
        let place = self.places.iter().position(|place| place.request.attempt == attempt);
        place.map(|place| self.places.remove(place)).is_some()
    }

    /// Removes and returns attempts past their deadline.
    pub(crate) fn expire(&mut self, now: MonotonicNs) -> Vec<AttemptId> {
        let late = |place: &mut Place| place.request.terms.deadline.is_some_and(|at| at <= now);
        self.places.extract_if(.., late).map(|place| place.request.attempt).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backends::terms::Terms;

    fn request(attempt: u64, priority: Priority, deadline: Option<u64>) -> Request {
        let terms = Terms { priority, deadline: deadline.map(MonotonicNs) };
        Request { attempt: AttemptId(attempt), prompt: vec![1], output_limit: 1, terms }
    }

    fn order(mut waiting: Waiting) -> Vec<u64> {
        std::iter::from_fn(|| waiting.pop()).map(|request| request.attempt.0).collect()
    }

    #[test]
    fn the_urgent_go_first_and_equals_in_order() {
        let mut waiting = Waiting::default();
        let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Normal];
        for (attempt, priority) in (0..).zip(priorities) {
            waiting.push(request(attempt, priority, None));
        }
        assert_eq!(order(waiting), [2, 1, 3, 0]);
    }

    #[test]
    fn the_late_leave_and_the_rest_stay() {
        let mut waiting = Waiting::default();
        for (attempt, deadline) in [(0, Some(5)), (1, None), (2, Some(9))] {
            waiting.push(request(attempt, Priority::Normal, deadline));
        }
        assert_eq!(waiting.expire(MonotonicNs(4)), []);
        assert_eq!(waiting.expire(MonotonicNs(5)), [AttemptId(0)]);
        assert!(waiting.remove(AttemptId(2)) && !waiting.remove(AttemptId(2)));
        assert_eq!((waiting.len(), order(waiting)), (1, vec![1]));
    }

    proptest! {
        /// With any number of urgent requests, fewer than two head starts of later ones overtake a
        /// request.
        #[test]
        fn nobody_starves(priorities in prop::collection::vec(0..3u8, 1..200), served in 0..100usize) {
            let mut waiting = Waiting::default();
            let mut order = Vec::new();
            for (attempt, priority) in (0..).zip(priorities) {
                let priority = [Priority::High, Priority::Normal, Priority::Low][usize::from(priority)];
                waiting.push(request(attempt, priority, None));
                if attempt % 3 == 0 && order.len() < served {
                    order.extend(waiting.pop().map(|request| request.attempt.0));
                }
            }
            order.extend(std::iter::from_fn(|| waiting.pop()).map(|request| request.attempt.0));
            for (place, attempt) in order.iter().enumerate() {
                let overtakers = order[..place].iter().filter(|&earlier| earlier > attempt).count();
                prop_assert!((overtakers as u64) < 2 * HEAD_START);
            }
        }
    }
}
