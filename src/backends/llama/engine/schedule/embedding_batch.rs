//! Batching of texts to embed: many short ones share a batch, clients take turns, and no request
//! waits for all texts of another.
//!
//! Pure: no llama types, no clock, no I/O.

use std::collections::{HashSet, VecDeque};

use crate::backends::llama::wire::token::Token;
use crate::shares::Client;
use crate::units::AttemptId;

/// Capacity of one batch; all at least 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Texts of one batch.
    pub(crate) sequences: usize,
    /// Tokens of one batch. At least the longest text.
    pub(crate) batch_tokens: usize,
}

/// One text of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) attempt: AttemptId,
    /// Index of the text in its request.
    pub(crate) input: usize,
}

/// Requests with texts left to embed, in turn order.
#[derive(Debug)]
pub(crate) struct EmbeddingBatcher {
    limits: Limits,
    requests: VecDeque<Request>,
}

#[derive(Debug)]
struct Request {
    attempt: AttemptId,
    client: Client,
    inputs: Vec<Vec<Token>>,
    /// Number of leading `inputs` that are embedded.
    done: usize,
}

impl EmbeddingBatcher {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, requests: VecDeque::new() }
    }

    /// Queues a request; `inputs` is not empty and each fits a batch.
    pub(crate) fn submit(&mut self, attempt: AttemptId, client: Client, inputs: Vec<Vec<Token>>) {
        self.requests.push_back(Request { attempt, client, inputs, done: 0 });
    }

    /// Removes a request; false if unknown.
    pub(crate) fn cancel(&mut self, attempt: AttemptId) -> bool {
        let before = self.requests.len();
        self.requests.retain(|request| request.attempt != attempt);
        self.requests.len() < before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The next batch: one text of each client in turn while it fits, of its requests the one with
    /// the fewest in this batch. Empty only if the queue is.
    pub(crate) fn next_batch(&self) -> Vec<Pick> {
        let mut picks = Vec::new();
        let mut room = self.limits.batch_tokens;
        let mut next: Vec<usize> = self.requests.iter().map(|request| request.done).collect();
        loop {
            let before = picks.len();
            let mut served = HashSet::new();
            let mut in_turn: Vec<usize> = (0..self.requests.len()).collect();
            in_turn.sort_by_key(|&index| next[index] - self.requests[index].done);
            for index in in_turn {
                let (request, input) = (&self.requests[index], &mut next[index]);
                let Some(tokens) = request.inputs.get(*input) else { continue };
                let fits = tokens.len() <= room && picks.len() < self.limits.sequences;
                if fits && served.insert(request.client) {
                    picks.push(Pick { attempt: request.attempt, input: *input });
                    room -= tokens.len();
                    *input += 1;
                }
            }
            if picks.len() == before {
                return picks;
            }
        }
    }

    /// The tokens of one text; empty if its request was cancelled.
    pub(crate) fn tokens(&self, pick: Pick) -> &[Token] {
        let request = self.requests.iter().find(|request| request.attempt == pick.attempt);
        request.and_then(|request| request.inputs.get(pick.input)).map_or(&[], Vec::as_slice)
    }

    /// Records an evaluated batch; removes and returns the requests that are complete.
    pub(crate) fn evaluated(&mut self, batch: &[Pick]) -> Vec<AttemptId> {
        for request in &mut self.requests {
            request.done += batch.iter().filter(|pick| pick.attempt == request.attempt).count();
        }
        let complete = |request: &Request| request.done == request.inputs.len();
        let finished = self.requests.iter().filter(|request| complete(request));
        let finished = finished.map(|request| request.attempt).collect();
        self.requests.retain(|request| !complete(request));
        // The first request of this batch goes last in the next, so a long text always gets its
        // turn.
        if !self.requests.is_empty() {
            self.requests.rotate_left(1);
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packing(sequences: usize, batch_tokens: usize, requests: &[&[usize]]) -> EmbeddingBatcher {
        let mut packing = EmbeddingBatcher::new(Limits { sequences, batch_tokens });
        for (attempt, lengths) in (0..).zip(requests) {
            let inputs = lengths.iter().map(|&length| vec![1; length]).collect();
            packing.submit(AttemptId(attempt), Client::default(), inputs);
        }
        packing
    }

    fn names(batch: &[Pick]) -> Vec<(u64, usize)> {
        batch.iter().map(|pick| (pick.attempt.0, pick.input)).collect()
    }

    #[test]
    fn requests_take_turns_within_a_batch() {
        let mut packing = packing(3, 100, &[&[5, 5, 5], &[5]]);
        let first = packing.next_batch();
        assert_eq!(names(&first), [(0, 0), (1, 0), (0, 1)]);
        assert_eq!(packing.evaluated(&first), [AttemptId(1)]);
        let second = packing.next_batch();
        assert_eq!(names(&second), [(0, 2)]);
        assert_eq!(packing.evaluated(&second), [AttemptId(0)]);
        assert!(packing.is_empty() && packing.next_batch().is_empty());
    }

    #[test]
    fn a_text_that_fills_the_batch_gets_its_turn() {
        let mut packing = packing(8, 10, &[&[3, 3, 3, 3, 3, 3, 3, 3, 3], &[10]]);
        let mut steps = 0;
        while !packing.evaluated(&packing.next_batch()).contains(&AttemptId(1)) {
            steps += 1;
            assert!(steps < 3, "the long text gets its turn");
        }
    }

    #[test]
    fn a_client_with_many_requests_has_one_turn_like_the_others() {
        let mut packing = EmbeddingBatcher::new(Limits { sequences: 4, batch_tokens: 100 });
        for attempt in 0..8 {
            packing.submit(AttemptId(attempt), Client::default(), vec![vec![1]]);
        }
        let other = Client { network: 1, key: None };
        packing.submit(AttemptId(8), other, vec![vec![1]; 2]);
        assert_eq!(names(&packing.next_batch()), [(0, 0), (8, 0), (1, 0), (8, 1)]);
    }

    #[test]
    fn a_cancelled_request_is_removed() {
        let mut packing = packing(8, 10, &[&[3], &[3]]);
        assert!(packing.cancel(AttemptId(0)) && !packing.cancel(AttemptId(0)));
        assert_eq!(names(&packing.next_batch()), [(1, 0)]);
    }

    proptest! {
        /// Every text is embedded exactly once, in order, and no batch is over the limits.
        #[test]
        fn everything_is_embedded_once_and_in_order(
            requests in prop::collection::vec(prop::collection::vec(1..20_usize, 1..6), 1..6),
            sequences in 1..5_usize,
            batch_tokens in 20..60_usize,
        ) {
            let all: Vec<&[usize]> = requests.iter().map(Vec::as_slice).collect();
            let mut packing = packing(sequences, batch_tokens, &all);
            let mut seen = vec![0; requests.len()];
            while !packing.is_empty() {
                let batch = packing.next_batch();
                prop_assert!(!batch.is_empty() && batch.len() <= sequences);
                let tokens: usize = batch.iter().map(|&pick| packing.tokens(pick).len()).sum();
                prop_assert!(tokens <= batch_tokens);
                for (attempt, input) in names(&batch) {
                    let seen = &mut seen[usize::try_from(attempt).unwrap()];
                    prop_assert_eq!(input, *seen);
                    *seen += 1;
                }
                packing.evaluated(&batch);
            }
            prop_assert_eq!(seen, requests.iter().map(Vec::len).collect::<Vec<_>>());
        }
    }
}
