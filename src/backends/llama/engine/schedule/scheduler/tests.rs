//! Unit and property tests of the scheduler, driven as the engine drives it but with a model that
//! is a function.

use proptest::prelude::*;

use super::*;
use crate::backends::llama::engine::schedule::placement::Transfer;
use crate::backends::scheduling_options::{Priority, SchedulingOptions};

const LIMITS: Limits = Limits { slots: 2, context_tokens: 16, batch_tokens: 6, queue: 2 };

fn request(attempt: u64, prompt: &[Token], output_limit: usize) -> Request {
    let (attempt, prompt) = (AttemptId(attempt), prompt.to_vec());
    Request { attempt, prompt, output_limit, terms: SchedulingOptions::default() }
}

/// Admits all it can, evaluates one batch and samples `token` for each completed sequence.
fn step(scheduler: &mut Scheduler, token: Token) -> Vec<Chunk> {
    while scheduler.admit().is_some() {}
    while scheduler.next_transfer().is_some() {}
    let batch = scheduler.next_batch(|_| usize::MAX);
    scheduler.evaluated(&batch);
    for chunk in batch.iter().filter(|chunk| chunk.completes) {
        if !scheduler.push(chunk.slot, token) {
            scheduler.release(chunk.slot);
        }
    }
    batch
}

fn phases(batch: &[Chunk]) -> Vec<(u64, ChunkKind, usize)> {
    batch.iter().map(|chunk| (chunk.attempt.0, chunk.kind, chunk.len)).collect()
}

#[test]
fn a_decode_row_is_never_delayed_by_a_long_prompt() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.submit(request(1, &[1, 2], 8)).unwrap();
    assert_eq!(phases(&step(&mut scheduler, 9)), [(1, ChunkKind::Prefill, 2)]);
    scheduler.submit(request(2, &[5; 12], 2)).unwrap();
    for (prefilled, completes) in [(5, false), (5, false), (2, true)] {
        let batch = step(&mut scheduler, 9);
        assert_eq!(phases(&batch), [(1, ChunkKind::Decode, 1), (2, ChunkKind::Prefill, prefilled)]);
        assert_eq!(batch[1].completes, completes);
    }
}

#[test]
fn prefills_share_the_budget_and_the_short_one_starts_first() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.submit(request(1, &[1; 12], 1)).unwrap();
    scheduler.submit(request(2, &[2; 2], 1)).unwrap();
    let batch = step(&mut scheduler, 9);
    assert_eq!(phases(&batch), [(1, ChunkKind::Prefill, 4), (2, ChunkKind::Prefill, 2)]);
    assert!(batch[1].completes && !batch[0].completes);
}

#[test]
fn a_conversation_finds_its_slot_and_another_does_not_take_it() {
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
    // Slot 0 leaves a cache behind, slots 1 and 2 stay busy: the empty neighbour is next, not slot
    // 4 or 5.
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
fn requests_are_refused_at_the_exact_limits() {
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
    assert_eq!(phases(&step(&mut scheduler, 9)), [(1, ChunkKind::Prefill, 6)]);
    assert_eq!(scheduler.cancel(AttemptId(1)), Cancelled::Running { slot: 0 });
    assert_eq!(scheduler.cancel(AttemptId(2)), Cancelled::Waiting);
    assert_eq!(scheduler.cancel(AttemptId(2)), Cancelled::Unknown);
    assert_eq!(phases(&step(&mut scheduler, 9)), [(3, ChunkKind::Prefill, 2)]);
}

#[test]
fn a_prompt_next_to_answers_gets_only_its_rows() {
    let mut scheduler = Scheduler::new(Limits { slots: 3, ..LIMITS });
    scheduler.submit(request(1, &[1, 2], 8)).unwrap();
    step(&mut scheduler, 9);
    scheduler.submit(request(2, &[5; 12], 2)).unwrap();
    scheduler.submit(request(3, &[6; 3], 2)).unwrap();
    while scheduler.admit().is_some() {}
    let asked = std::cell::Cell::new(0);
    let given = |rows| {
        scheduler.next_batch(|decode_rows| {
            asked.set(decode_rows);
            rows
        })
    };
    let lens = |batch: Vec<Chunk>| batch.iter().map(|chunk| chunk.len).collect::<Vec<_>>();
    // The shortest prompt goes first.
    assert_eq!(lens(given(3)), [1, 1, 2]);
    assert_eq!(asked.get(), 1, "decode rows");
    // Every prefill gets at least one row, and all together fit the batch.
    assert_eq!(lens(given(0)), [1, 1, 1]);
    assert_eq!(lens(given(usize::MAX)), [1, 2, 3]);
}

#[test]
fn a_deadline_ends_queued_and_running_requests() {
    let mut scheduler = Scheduler::new(Limits { slots: 1, ..LIMITS });
    for attempt in 1..=3 {
        let mut late = request(attempt, &[1, 2], 8);
        late.terms.deadline = (attempt < 3).then_some(MonotonicNs(10 * attempt));
        scheduler.submit(late).unwrap();
    }
    step(&mut scheduler, 9);
    assert_eq!(scheduler.expire(MonotonicNs(9)), []);
    assert_eq!(scheduler.expire(MonotonicNs(20)), [AttemptId(2), AttemptId(1)]);
    assert_eq!(
        phases(&step(&mut scheduler, 9)),
        [(3, ChunkKind::Prefill, 1)],
        "its first token is cached"
    );
}

#[test]
fn priority_orders_the_queue() {
    let mut scheduler = Scheduler::new(Limits { slots: 1, ..LIMITS });
    for (attempt, priority) in [(1, Priority::Normal), (2, Priority::Low), (3, Priority::High)] {
        let mut request = request(attempt, &[7], 1);
        request.terms.priority = priority;
        scheduler.submit(request).unwrap();
    }
    let order = [(); 3].map(|()| step(&mut scheduler, 9)[0].attempt.0);
    assert_eq!(order, [3, 1, 2]);
}

const LONG: Limits = Limits { slots: 3, context_tokens: 256, batch_tokens: 40, queue: 4 };

/// A system prompt of `shared` tokens, and a question of its own.
fn shared_prompt(shared: usize, question: Token) -> Vec<Token> {
    (0..100).chain([question; 10]).skip(100 - shared).collect()
}

#[test]
fn a_shared_prefix_is_read_once_and_then_moved() {
    let mut scheduler = Scheduler::new(LONG);
    for attempt in 1..=3 {
        let prompt = shared_prompt(100, 1000 + i32::try_from(attempt).unwrap());
        scheduler.submit(request(attempt, &prompt, 2)).unwrap();
    }
    let first = scheduler.admit().unwrap();
    let second = scheduler.admit().unwrap();
    let third = scheduler.admit().unwrap();
    assert_eq!(
        (first.expected_tokens, second.expected_tokens, third.expected_tokens),
        (0, 100, 100)
    );
    // The whole budget is the first one's until it has read what the others wait for.
    for _ in 0..2 {
        assert_eq!(scheduler.next_transfer(), None);
        assert_eq!(phases(&step(&mut scheduler, 9)), [(1, ChunkKind::Prefill, 40)]);
    }
    assert_eq!(phases(&step(&mut scheduler, 9)), [(1, ChunkKind::Prefill, 30)]);
    for (to, attempt) in [(1, 2), (2, 3)] {
        let attempt = AttemptId(attempt);
        let expected = Transfer { from: 0, to, attempt, tokens: 100 };
        assert_eq!(scheduler.next_transfer(), Some(expected));
    }
    let batch = step(&mut scheduler, 9);
    let expected =
        [(1, ChunkKind::Decode, 1), (2, ChunkKind::Prefill, 10), (3, ChunkKind::Prefill, 10)];
    assert_eq!(phases(&batch), expected);
}

#[test]
fn a_cancelled_source_shares_its_evaluated_prefix() {
    for (steps, moved) in [(0, None), (1, Some(40)), (2, Some(80))] {
        let mut scheduler = Scheduler::new(LONG);
        for attempt in 1..=2 {
            scheduler.submit(request(attempt, &shared_prompt(100, 7), 2)).unwrap();
        }
        while scheduler.admit().is_some() {}
        for _ in 0..steps {
            step(&mut scheduler, 9);
        }
        scheduler.cancel(AttemptId(1));
        let transfer = scheduler.next_transfer();
        assert_eq!(transfer.map(|transfer| transfer.tokens), moved);
        assert_eq!(step(&mut scheduler, 9)[0].attempt, AttemptId(2), "it goes on by itself");
    }
}

#[test]
fn a_displaced_conversation_is_returned_for_saving() {
    let mut scheduler = Scheduler::new(Limits { slots: 1, ..LONG });
    let long = shared_prompt(60, 7);
    scheduler.submit(request(1, &long, 1)).unwrap();
    while scheduler.admit().is_some() {}
    step(&mut scheduler, 9);
    step(&mut scheduler, 9);
    scheduler.submit(request(2, &[5, 5], 1)).unwrap();
    let admission = scheduler.admit().unwrap();
    assert_eq!(admission.displaced, long);
    step(&mut scheduler, 9);
    scheduler.submit(request(3, &[6, 6], 1)).unwrap();
    assert!(scheduler.admit().unwrap().displaced.is_empty(), "too short to be worth it");
    scheduler.restored(0, 1);
    assert_eq!(phases(&step(&mut scheduler, 9)), [(3, ChunkKind::Prefill, 1)]);
}

mod properties;
