//! Conversations as the gateway sees them: each turn repeats all messages before it.

use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3600 * 1_000_000_000;

fn limits(sessions: usize) -> Limits {
    Limits { sessions, idle: Duration::from_hours(1), floor_step: 0.1 }
}

/// The request of turn `turn` (0 is the first) of a conversation; every turn has one message and
/// one answer.
fn fingerprint(conversation: u64, turn: u64) -> Fingerprint {
    let hash = |turn| conversation * 1000 + turn;
    let (prefix_hashes, full_hash) = ((0..turn).map(hash).collect(), hash(turn));
    let (history_hashes, new_hashes) = ((0..turn).map(hash).collect(), vec![hash(turn)]);
    Fingerprint { named: None, prefix_hashes, full_hash, history_hashes, new_hashes }
}

fn named(id: u64) -> Fingerprint {
    Fingerprint { named: Some(SessionId(id)), ..fingerprint(id, 0) }
}

fn turn(model: &str, fingerprint: &Fingerprint) -> Turn {
    Turn {
        model: model.into(),
        route: Route::Local,
        full_hash: fingerprint.full_hash,
        cached_tokens: 300,
    }
}

#[test]
fn the_next_turn_finds_its_conversation_and_a_similar_beginning_does_not() {
    let mut sessions = Sessions::new(limits(10));
    let now = MonotonicNs(0);
    let first = sessions.enter(&fingerprint(1, 0), false, now);
    sessions.answered(first, turn("small", &fingerprint(1, 0)));
    let known = sessions.known(&fingerprint(1, 1), now);
    assert_eq!(known.id, Some(first));
    assert_eq!(known.last.as_ref().map(|last| &*last.model), Some("small"));
    assert_eq!(known.cached_tokens("small", &fingerprint(1, 1)), 300);
    assert_eq!(known.cached_tokens("large", &fingerprint(1, 1)), 0);
    // The same first message from another client: a conversation of its own.
    assert_eq!(sessions.known(&fingerprint(1, 0), now), SessionState::default());
    assert_ne!(sessions.enter(&fingerprint(1, 0), false, now), first);
}

#[test]
fn a_named_conversation_is_found_by_name_but_its_cache_only_by_its_messages() {
    let mut sessions = Sessions::new(limits(10));
    let id = sessions.enter(&named(7), false, MonotonicNs(0));
    sessions.answered(id, turn("small", &named(7)));
    let elsewhere = Fingerprint { named: Some(SessionId(7)), ..fingerprint(9, 3) };
    let known = sessions.known(&elsewhere, MonotonicNs(1));
    assert_eq!((known.id, known.last.is_some()), (Some(id), true));
    assert_eq!(known.cached_tokens("small", &elsewhere), 0);
}

#[test]
fn a_local_only_conversation_stays_local_only() {
    let mut sessions = Sessions::new(limits(10));
    sessions.enter(&fingerprint(1, 0), true, MonotonicNs(0));
    assert!(sessions.known(&fingerprint(1, 1), MonotonicNs(1)).local_only);
    sessions.enter(&fingerprint(1, 1), false, MonotonicNs(1));
    assert!(sessions.known(&fingerprint(1, 2), MonotonicNs(2)).local_only);
    // Idle beyond the limit for other conversations.
    assert!(sessions.known(&fingerprint(1, 2), MonotonicNs(5 * HOUR)).local_only);
    // Another conversation begins alike: the next turns are indistinguishable, so both must stay.
    sessions.enter(&fingerprint(1, 0), false, MonotonicNs(3));
    assert!(sessions.known(&fingerprint(1, 1), MonotonicNs(4)).local_only);
    assert!(!sessions.known(&fingerprint(1, 0), MonotonicNs(4)).local_only, "a first turn is new");
}

#[test]
fn an_excerpt_of_a_local_only_conversation_is_recognised() {
    let mut sessions = Sessions::new(limits(10));
    let now = MonotonicNs(0);
    sessions.enter(&fingerprint(1, 2), true, now);
    // The beginning was cut off, or the conversation continues under a name.
    let cut = |said: u64| Fingerprint { history_hashes: vec![said], ..fingerprint(9, 1) };
    assert!(sessions.known(&cut(1001), now).local_only);
    assert!(
        sessions.known(&Fingerprint { named: Some(SessionId(5)), ..cut(1002) }, now).local_only
    );
    assert!(!sessions.known(&cut(1003), now).local_only);
    let anew = Fingerprint { new_hashes: vec![1002], ..fingerprint(9, 0) };
    assert!(!sessions.known(&anew, now).local_only, "a first turn is new");
    sessions.enter(&cut(1001), false, now);
    assert!(sessions.known(&fingerprint(9, 2), now).local_only, "and so are its later turns");
}

#[test]
fn a_failed_answer_raises_the_floor_above_what_was_predicted() {
    let mut sessions = Sessions::new(limits(10));
    let id = sessions.enter(&fingerprint(1, 0), false, MonotonicNs(0));
    sessions.answered(id, turn("small", &fingerprint(1, 0)));
    assert!(sessions.failed(id, 0.7));
    let floor = |sessions: &Sessions| sessions.known(&fingerprint(1, 1), MonotonicNs(0)).floor;
    assert!((floor(&sessions) - 0.8).abs() < 1e-9);
    // A repeated failure does not raise it further; one at a higher prediction does.
    sessions.failed(id, 0.7);
    assert!((floor(&sessions) - 0.8).abs() < 1e-9);
    sessions.failed(id, 0.95);
    assert!((floor(&sessions) - FLOOR_MAX).abs() < 1e-9);
    assert!(!sessions.failed(SessionId(404), 0.5));
}

#[test]
fn idle_conversations_are_forgotten_and_a_full_memory_forgets_the_longest_idle() {
    let mut sessions = Sessions::new(limits(2));
    sessions.enter(&fingerprint(1, 0), true, MonotonicNs(0));
    sessions.enter(&fingerprint(2, 0), false, MonotonicNs(1));
    sessions.enter(&fingerprint(3, 0), false, MonotonicNs(2));
    let knows = |sessions: &Sessions, conversation, now| {
        sessions.known(&fingerprint(conversation, 1), MonotonicNs(now)).id.is_some()
    };
    assert!(knows(&sessions, 1, 3), "local-only conversations are kept longest");
    assert!(!knows(&sessions, 2, 3) && knows(&sessions, 3, 3));
    assert!(!knows(&sessions, 3, 2 * HOUR));
    sessions.enter(&fingerprint(4, 0), false, MonotonicNs(2 * HOUR));
    assert_eq!(sessions.len(), 2);
}

#[test]
fn an_id_round_trips_through_the_log() {
    let id = SessionId(0x0123_4567_89ab_cdef);
    let text = serde_json::to_string(&id).unwrap();
    assert_eq!(text, "\"0123456789abcdef\"");
    assert_eq!(serde_json::from_str::<SessionId>(&text).unwrap(), id);
}

proptest! {
    #[test]
    fn memory_is_bounded_and_taint_is_never_lost_while_there_is_room(
        steps in proptest::collection::vec((0u64..6, 0u64..12, any::<bool>(), any::<bool>()), 0..200),
    ) {
        let mut sessions = Sessions::new(limits(8));
        let mut tainted = std::collections::BTreeSet::new();
        for (at, (conversation, turn, taints, by_name)) in steps.into_iter().enumerate() {
            let now = MonotonicNs(at as u64 * HOUR / 3);
            let fingerprint = if by_name { named(conversation) } else { fingerprint(conversation, turn) };
            sessions.enter(&fingerprint, taints, now);
            if taints && by_name {
                tainted.insert(conversation);
            }
            prop_assert!(sessions.len() <= 8);
            prop_assert_eq!(sessions.order.len(), sessions.len());
            prop_assert!(sessions.prefixes.len() <= 8 * PREFIXES_MAX);
            prop_assert!(sessions.private.order.len() <= 8 * PREFIXES_MAX);
            prop_assert_eq!(sessions.private.order.len(), sessions.private.messages.len());
            if sessions.len() == 8 && sessions.by_id.values().all(|session| session.local_only) {
                // No room for others: the next one may displace one.
                tainted.clear();
            }
        }
        for conversation in tainted {
            prop_assert!(sessions.known(&named(conversation), MonotonicNs(u64::MAX)).local_only);
        }
    }
}
