//! Unit and property tests of the scheduler, driven as the engine drives it but with a model that is a function.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { slots: 2, context_tokens: 16, batch_tokens: 6, queue: 2 };

fn request(attempt: u64, prompt: &[Token], output_limit: usize) -> Request {
    Request { attempt: AttemptId(attempt), prompt: prompt.to_vec(), output_limit }
}

/// Admits all it can, evaluates one batch and samples `token` for each completed sequence.
fn step(scheduler: &mut Scheduler, token: Token) -> Vec<Chunk> {
    while scheduler.admit().is_some() {}
    let batch = scheduler.next_batch();
    scheduler.evaluated(&batch);
    for chunk in batch.iter().filter(|chunk| chunk.completes) {
        if !scheduler.push(chunk.slot, token) {
            scheduler.release(chunk.slot);
        }
    }
    batch
}

fn phases(batch: &[Chunk]) -> Vec<(u64, Phase, usize)> {
    batch.iter().map(|chunk| (chunk.attempt.0, chunk.phase, chunk.len)).collect()
}

#[test]
fn a_decode_row_is_never_delayed_by_a_long_prompt() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.submit(request(1, &[1, 2], 8)).unwrap();
    assert_eq!(phases(&step(&mut scheduler, 9)), [(1, Phase::Prefill, 2)]);
    scheduler.submit(request(2, &[5; 12], 2)).unwrap();
    for (prefilled, completes) in [(5, false), (5, false), (2, true)] {
        let batch = step(&mut scheduler, 9);
        assert_eq!(phases(&batch), [(1, Phase::Decode, 1), (2, Phase::Prefill, prefilled)]);
        assert_eq!(batch[1].completes, completes);
    }
}

#[test]
fn prefills_share_the_budget_and_the_short_one_starts_first() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.submit(request(1, &[1; 12], 1)).unwrap();
    scheduler.submit(request(2, &[2; 2], 1)).unwrap();
    let batch = step(&mut scheduler, 9);
    assert_eq!(phases(&batch), [(1, Phase::Prefill, 4), (2, Phase::Prefill, 2)]);
    assert!(batch[1].completes && !batch[0].completes);
}

#[test]
fn a_conversation_finds_its_slot_and_a_stranger_leaves_it_alone() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.submit(request(1, &[1, 2, 3, 4], 1)).unwrap();
    step(&mut scheduler, 9);
    // Shares one template token only: the empty slot is cheaper than another's cache.
    scheduler.submit(request(2, &[1, 7, 7], 1)).unwrap();
    let stranger = scheduler.admit().unwrap();
    assert_eq!((stranger.slot, stranger.cached_tokens), (1, 0));
    scheduler.submit(request(3, &[1, 2, 3, 4, 9, 5], 1)).unwrap();
    let continued = scheduler.admit().unwrap();
    assert_eq!((continued.slot, continued.cached_tokens), (0, 4));
}

#[test]
fn busy_slots_stay_together() {
    let mut scheduler = Scheduler::new(Limits { slots: 6, batch_tokens: 6, ..LIMITS });
    for attempt in 0..3 {
        scheduler.submit(request(attempt, &[7], 8)).unwrap();
    }
    step(&mut scheduler, 9);
    // Slot 0 leaves a cache behind, slots 1 and 2 stay busy: the empty neighbour is next, not slot 4 or 5.
    scheduler.cancel(AttemptId(0));
    scheduler.submit(request(3, &[5, 5, 5], 8)).unwrap();
    assert_eq!(scheduler.admit().unwrap().slot, 3);
    scheduler.cancel(AttemptId(2));
    for (attempt, slot) in [(4, 4), (5, 5), (6, 2)] {
        scheduler.submit(request(attempt, &[5, 5, 5], 8)).unwrap();
        assert_eq!(scheduler.admit().unwrap().slot, slot);
    }
}

#[test]
fn the_same_prompt_again_still_evaluates_its_last_token() {
    let mut scheduler = Scheduler::new(LIMITS);
    for attempt in 1..=2 {
        scheduler.submit(request(attempt, &[1, 2, 3], 1)).unwrap();
        let batch = step(&mut scheduler, 9);
        assert_eq!(batch[0].len, if attempt == 1 { 3 } else { 1 });
    }
}

#[test]
fn refusals_are_exact() {
    let mut scheduler = Scheduler::new(LIMITS);
    assert_eq!(scheduler.submit(request(1, &[], 1)), Err(Rejection::EmptyPrompt));
    assert_eq!(
        scheduler.submit(request(1, &[1; 16], 1)),
        Err(Rejection::ContextExceeded { prompt_tokens: 16, context_tokens: 16 })
    );
    for attempt in 0..4 {
        scheduler.submit(request(attempt, &[1], 1)).unwrap();
    }
    assert_eq!(scheduler.submit(request(4, &[1], 1)), Err(Rejection::QueueFull));
}

#[test]
fn cancelling_frees_the_slot_for_the_next_batch() {
    let mut scheduler = Scheduler::new(Limits { slots: 1, ..LIMITS });
    scheduler.submit(request(1, &[1; 10], 4)).unwrap();
    scheduler.submit(request(2, &[2, 2], 1)).unwrap();
    scheduler.submit(request(3, &[3, 3], 1)).unwrap();
    assert_eq!(phases(&step(&mut scheduler, 9)), [(1, Phase::Prefill, 6)]);
    assert_eq!(scheduler.cancel(AttemptId(1)), Cancelled::Running { slot: 0 });
    assert_eq!(scheduler.cancel(AttemptId(2)), Cancelled::Waiting);
    assert_eq!(scheduler.cancel(AttemptId(2)), Cancelled::Unknown);
    assert_eq!(phases(&step(&mut scheduler, 9)), [(3, Phase::Prefill, 2)]);
}

/// What happens to the engine between two steps.
#[derive(Clone, Debug)]
enum Happening {
    Submit { prompt: Vec<Token>, output_limit: usize },
    Cancel { attempt: u64 },
    Nothing,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (prop::collection::vec(0..3i32, 1..20), 1..8usize)
            .prop_map(|(prompt, output_limit)| Happening::Submit { prompt, output_limit }),
        1 => (0..20u64).prop_map(|attempt| Happening::Cancel { attempt }),
        2 => Just(Happening::Nothing),
    ]
}

proptest! {
    /// Whatever comes: batches keep every bound, each row continues its sequence where the KV cache ends, every
    /// active sequence advances, the cache always holds what the scheduler believes, and all work ends.
    #[test]
    fn every_bound_holds_and_everything_ends(
        happenings in prop::collection::vec(happening(), 1..60),
        slots in 1..4usize,
        spare_rows in 0..5usize,
    ) {
        let limits = Limits { slots, context_tokens: 16, batch_tokens: slots + spare_rows, queue: 3 };
        let mut scheduler = Scheduler::new(limits);
        let mut kv: Vec<Vec<Token>> = vec![Vec::new(); slots];
        let mut open = std::collections::HashMap::new();
        let mut steps_left = 2000;
        let mut happenings = happenings.into_iter();
        let mut next_attempt = 0;
        loop {
            let next = happenings.next();
            let drained = next.is_none();
            match next.unwrap_or(Happening::Nothing) {
                Happening::Submit { prompt, output_limit } => {
                    let attempt = next_attempt;
                    next_attempt += 1;
                    let expected = output_limit.min(limits.context_tokens.saturating_sub(prompt.len()));
                    if scheduler.submit(request(attempt, &prompt, output_limit)).is_ok() {
                        open.insert(attempt, (expected, 0));
                    }
                }
                Happening::Cancel { attempt } => {
                    let found = scheduler.cancel(AttemptId(attempt)) != Cancelled::Unknown;
                    prop_assert_eq!(found, open.remove(&attempt).is_some());
                }
                Happening::Nothing => {}
            }
            while let Some(admission) = scheduler.admit() {
                prop_assert!(admission.cached_tokens < admission.prompt_tokens);
                kv[admission.slot].truncate(admission.cached_tokens);
            }
            let batch = scheduler.next_batch();
            prop_assert!(batch.iter().map(|chunk| chunk.len).sum::<usize>() <= limits.batch_tokens);
            prop_assert!(batch.is_sorted_by_key(|chunk| chunk.slot));
            for chunk in &batch {
                prop_assert!(chunk.len >= 1, "a sequence was starved");
                prop_assert_eq!(kv[chunk.slot].len(), chunk.start);
                kv[chunk.slot].extend_from_slice(scheduler.tokens(chunk));
                prop_assert!(kv[chunk.slot].len() < limits.context_tokens);
            }
            scheduler.evaluated(&batch);
            for chunk in batch.iter().filter(|chunk| chunk.completes) {
                let (expected, generated) = open.get_mut(&chunk.attempt.0).unwrap();
                *generated += 1;
                if !scheduler.push(chunk.slot, 1) {
                    prop_assert_eq!(*generated, *expected);
                    open.remove(&chunk.attempt.0);
                    scheduler.release(chunk.slot);
                }
            }
            if drained && batch.is_empty() {
                break;
            }
            steps_left -= 1;
            prop_assert!(steps_left > 0, "work never ends");
        }
        prop_assert!(open.is_empty());
    }
}
