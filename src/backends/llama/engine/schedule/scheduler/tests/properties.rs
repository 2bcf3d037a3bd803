//! Property tests of the scheduler: with any arrivals, cancellations and deadlines, the batches
//! stay within llama.cpp's limits and all work ends.

use std::collections::HashMap;

use super::*;

/// An event between two steps.
#[derive(Clone, Debug)]
enum Happening {
    Submit { prompt: Vec<Token>, output_limit: usize, priority: u8, patience: Option<u64> },
    Cancel { attempt: u64 },
    Nothing,
}

const CONTEXT: usize = 120;

fn happening() -> impl Strategy<Value = Happening> {
    // Two common prefixes, longer than the minimum worth moving, and a short rest.
    let prompt = (0..3i32, 0..110usize, prop::collection::vec(0..3i32, 1..12)).prop_map(
        |(shared, len, end)| (0..).map(|n| n * shared).take(len).chain(end).collect::<Vec<_>>(),
    );
    prop_oneof![
        4 => (prompt, 1..8usize, 0..3u8, prop::option::of(0..40u64)).prop_map(
            |(prompt, output_limit, priority, patience)| {
                Happening::Submit { prompt, output_limit, priority, patience }
            }
        ),
        1 => (0..20u64).prop_map(|attempt| Happening::Cancel { attempt }),
        2 => Just(Happening::Nothing),
    ]
}

/// The KV cache after all batches and transfers, and the open attempts.
struct World {
    scheduler: Scheduler,
    limits: Limits,
    kv: Vec<Vec<Token>>,
    /// Tokens to come and tokens generated of each open attempt.
    open: HashMap<u64, (usize, usize)>,
    next_attempt: u64,
    now: u64,
}

impl World {
    fn happen(&mut self, happening: Happening) -> Result<(), TestCaseError> {
        match happening {
            Happening::Submit { prompt, output_limit, priority, patience } => {
                let attempt = self.next_attempt;
                self.next_attempt += 1;
                let expected = output_limit.min(CONTEXT.saturating_sub(prompt.len()));
                let mut request = request(attempt, &prompt, output_limit);
                request.terms.priority =
                    [Priority::High, Priority::Normal, Priority::Low][usize::from(priority)];
                request.terms.deadline = patience.map(|wait| MonotonicNs(self.now + wait));
                if self.scheduler.submit(request).is_ok() {
                    self.open.insert(attempt, (expected, 0));
                }
            }
            Happening::Cancel { attempt } => {
                let found = self.scheduler.cancel(AttemptId(attempt)) != Cancelled::Unknown;
                prop_assert_eq!(found, self.open.remove(&attempt).is_some());
            }
            Happening::Nothing => {}
        }
        self.now += 1;
        for attempt in self.scheduler.expire(MonotonicNs(self.now)) {
            prop_assert!(self.open.remove(&attempt.0).is_some(), "ended twice");
        }
        Ok(())
    }

    fn place(&mut self) -> Result<(), TestCaseError> {
        while let Some(admission) = self.scheduler.admit() {
            prop_assert!(admission.cached_tokens <= admission.expected_tokens);
            prop_assert!(admission.expected_tokens < admission.prompt_tokens);
            let kv = &mut self.kv[admission.slot];
            prop_assert!(admission.displaced.is_empty() || admission.displaced == *kv);
            kv.truncate(admission.cached_tokens);
            self.transfer()?;
        }
        self.transfer()
    }

    fn transfer(&mut self) -> Result<(), TestCaseError> {
        while let Some(Transfer { from, to, tokens, .. }) = self.scheduler.next_transfer() {
            prop_assert!(from != to && tokens <= self.kv[from].len());
            self.kv[to] = self.kv[from][..tokens].to_vec();
        }
        Ok(())
    }

    /// Evaluates one batch; false if it was empty.
    fn step(&mut self, prompt_rows: usize) -> Result<bool, TestCaseError> {
        // Drafts that are accepted (the model always outputs 1), rejected at once, and rejected
        // later.
        for (slot, attempt) in self.scheduler.answering() {
            let guess: &[Token] = match (attempt.0 + self.now) % 4 {
                0 => &[],
                1 => &[1, 1, 1],
                2 => &[2, 1],
                _ => &[1, 2, 1],
            };
            self.scheduler.propose(slot, guess);
        }
        let batch = self.scheduler.next_batch(|_| prompt_rows);
        let rows: usize = batch.iter().map(|chunk| chunk.len).sum();
        prop_assert!(rows <= self.limits.batch_tokens);
        prop_assert!(batch.is_sorted_by(|one, other| one.slot < other.slot));
        for chunk in &batch {
            prop_assert!(chunk.len >= 1, "a sequence was starved");
            let kv = &mut self.kv[chunk.slot];
            prop_assert_eq!(kv.len(), chunk.start);
            kv.extend_from_slice(self.scheduler.tokens(chunk));
            prop_assert!(kv.len() < self.limits.context_tokens);
            let sequence = self.scheduler.prompt(chunk.slot);
            prop_assert_eq!(&sequence[..kv.len()], &kv[..], "the cache is another's");
        }
        self.scheduler.evaluated(&batch);
        for chunk in batch.iter().filter(|chunk| chunk.completes) {
            let mut rows = 0;
            loop {
                rows += 1;
                let (expected, generated) = self.open.get_mut(&chunk.attempt.0).unwrap();
                *generated += 1;
                if !self.scheduler.push(chunk.slot, 1) {
                    prop_assert_eq!(*generated, *expected);
                    self.open.remove(&chunk.attempt.0);
                    self.scheduler.release(chunk.slot);
                }
                if !self.scheduler.is_ahead(chunk.slot) {
                    break;
                }
            }
            prop_assert!(rows <= 1 + chunk.drafts, "a token without logits");
            self.kv[chunk.slot].truncate(self.scheduler.kept(chunk.slot));
        }
        Ok(!batch.is_empty())
    }
}

proptest! {
    /// Batches keep every bound, each row continues its sequence at the end of the KV cache, every
    /// active sequence advances, the cache equals the scheduler's view, and all work ends.
    #[test]
    fn every_bound_holds_and_everything_ends(
        happenings in prop::collection::vec(happening(), 1..60),
        slots in 1..5usize,
        spare_rows in 0..50usize,
        prompt_rows in 0..60usize,
    ) {
        let limits =
            Limits { slots, context_tokens: CONTEXT, batch_tokens: slots + spare_rows, queue: 3 };
        let mut world = World {
            scheduler: Scheduler::new(limits),
            limits,
            kv: vec![Vec::new(); slots],
            open: HashMap::new(),
            next_attempt: 0,
            now: 0,
        };
        for happening in happenings {
            world.happen(happening)?;
            world.place()?;
            world.step(prompt_rows)?;
        }
        for _ in 0..20_000 {
            world.place()?;
            if !world.step(prompt_rows)? {
                break;
            }
        }
        prop_assert!(world.open.is_empty(), "work never ends");
        prop_assert_eq!(world.scheduler.queue.len(), 0);
    }
}
