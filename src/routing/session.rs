//! Memory of conversations: the model each is on, its raised floor, and whether it must stay on
//! this machine. In memory only; a restart forgets all of it.
//!
//! Pure: the caller supplies time and keys, and no text is kept. Bounded: the longest idle
//! conversation is forgotten first, one that must stay on this machine only when no other is left.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Route;
use crate::units::MonotonicNs;

/// Prefix hashes remembered per conversation; a client that resumes from an earlier turn starts a
/// new one.
const PREFIXES_MAX: usize = 8;
/// Upper limit of raised floors: some model must be able to reach it.
const FLOOR_MAX: f64 = 0.99;

/// Key of a conversation: a keyed hash, meaningless without the key of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Bounds of the memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub sessions: usize,
    pub idle: Duration,
    /// Addition to the floor for each failed answer, 0 to 1.
    pub floor_step: f64,
}

/// Hashes by which a request's conversation is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Keyed hash of the name that the client gave the conversation.
    pub named: Option<SessionId>,
    /// Keyed hashes of the messages before each assistant turn, shortest prefix first.
    pub prefix_hashes: Vec<u64>,
    /// Keyed hash of all messages.
    pub full_hash: u64,
    /// Keyed hashes of single longer messages, at any position: those up to the last answer, and
    /// those after it.
    pub history_hashes: Vec<u64>,
    pub new_hashes: Vec<u64>,
}

/// The last answered turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    pub model: Arc<str>,
    pub route: Route,
    /// [`Fingerprint::full_hash`] of the request that was answered.
    pub full_hash: u64,
    /// Tokens of that conversation in the model's cache afterwards.
    pub cached_tokens: u64,
}

/// State of the conversation that a request belongs to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionState {
    /// Its key; `None` before its first turn.
    pub id: Option<SessionId>,
    pub local_only: bool,
    /// Floor raised by failed answers; 0 if none failed.
    pub floor: f64,
    pub last: Option<Turn>,
}

impl SessionState {
    /// Tokens of the request in the cache of `model`: only those read from exactly these messages.
    pub fn cached_tokens(&self, model: &str, fingerprint: &Fingerprint) -> u64 {
        let last = self.last.as_ref().filter(|last| &*last.model == model);
        let read = |last: &&Turn| {
            fingerprint.prefix_hashes.contains(&last.full_hash)
                || last.full_hash == fingerprint.full_hash
        };
        last.filter(read).map_or(0, |last| last.cached_tokens)
    }
}

/// The conversations of one gateway.
#[derive(Debug)]
pub struct Sessions {
    limits: Limits,
    by_id: HashMap<SessionId, Session>,
    prefixes: HashMap<u64, Prefix>,
    /// Order of forgetting: by whether it must stay on this machine, then by last use.
    order: BTreeMap<(bool, u64), SessionId>,
    private: Private,
    /// Number of uses.
    clock: u64,
}

/// Hashes of longer messages of conversations that had to stay on this machine, by which an excerpt
/// is recognised; the oldest are forgotten first.
#[derive(Debug, Default)]
struct Private {
    messages: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Private {
    fn remember(&mut self, fingerprint: &Fingerprint, most: usize) {
        for &message in fingerprint.history_hashes.iter().chain(&fingerprint.new_hashes) {
            if self.messages.insert(message) {
                self.order.push_back(message);
            }
        }
        while self.order.len() > most {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.messages.remove(&oldest));
        }
    }

    /// Whether the history holds a message of a conversation that had to stay on this machine. New
    /// messages do not count: anyone may ask the same question.
    fn knows(&self, fingerprint: &Fingerprint) -> bool {
        fingerprint.history_hashes.iter().any(|message| self.messages.contains(message))
    }
}

#[derive(Debug)]
struct Session {
    local_only: bool,
    floor: f64,
    last: Option<Turn>,
    /// Keys in `Sessions::prefixes`, oldest first.
    prefix_hashes: Vec<u64>,
    used: u64,
    at: MonotonicNs,
}

#[derive(Clone, Copy, Debug)]
struct Prefix {
    session: SessionId,
    /// Some conversation with this prefix had to stay on this machine. Outlives that conversation
    /// if another one has the same prefix, since their next turns are indistinguishable.
    local_only: bool,
}

impl Sessions {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_id: HashMap::new(),
            prefixes: HashMap::new(),
            order: BTreeMap::new(),
            private: Private::default(),
            clock: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// State of the request's conversation; changes nothing.
    pub fn known(&self, fingerprint: &Fingerprint, now: MonotonicNs) -> SessionState {
        let prefix = self.prefix(fingerprint);
        let id = fingerprint.named.or(prefix.map(|prefix| prefix.session));
        let through = fingerprint.named.is_none() && prefix.is_some_and(|prefix| prefix.local_only);
        let local_only = through || self.private.knows(fingerprint);
        let session = id.and_then(|id| self.by_id.get(&id));
        match session.filter(|session| !self.is_old(session, now)) {
            Some(session) => SessionState {
                id,
                local_only: local_only || session.local_only,
                floor: session.floor,
                last: session.last.clone(),
            },
            None => SessionState { id: fingerprint.named, local_only, ..SessionState::default() },
        }
    }

    /// Remembers the conversation of a request that is being answered, and whether it must stay
    /// here.
    pub fn enter(
        &mut self,
        fingerprint: &Fingerprint,
        local_only: bool,
        now: MonotonicNs,
    ) -> SessionId {
        let known = self.known(fingerprint, now);
        self.clock += 1;
        // Two conversations may begin alike: a first turn is always a new one.
        let id = known.id.unwrap_or(SessionId(mix(fingerprint.full_hash, self.clock)));
        self.forget_old(now);
        let mut session = self.take_out(id).filter(|session| !self.is_old(session, now));
        let entry = session.get_or_insert_with(|| Session {
            local_only: false,
            floor: 0.0,
            last: None,
            prefix_hashes: Vec::new(),
            used: 0,
            at: now,
        });
        entry.local_only |= local_only || known.local_only;
        (entry.used, entry.at) = (self.clock, now);
        if entry.local_only {
            self.private.remember(fingerprint, self.limits.sessions.saturating_mul(PREFIXES_MAX));
        }
        self.mark(id, entry, fingerprint);
        if let Some(session) = session {
            self.order.insert((session.local_only, session.used), id);
            self.by_id.insert(id, session);
        }
        while self.by_id.len() > self.limits.sessions {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.forget(oldest);
        }
        id
    }

    /// Moves the conversation to the model that answered.
    pub fn answered(&mut self, id: SessionId, turn: Turn) {
        if let Some(session) = self.by_id.get_mut(&id) {
            session.last = Some(turn);
        }
    }

    /// Raises the conversation's floor above `passed`, the floor or predicted adequacy under which
    /// an answer failed. Returns `false` if the conversation is not remembered.
    pub fn failed(&mut self, id: SessionId, passed: f64) -> bool {
        let raised = (passed + self.limits.floor_step).min(FLOOR_MAX);
        let Some(session) = self.by_id.get_mut(&id) else { return false };
        session.floor = session.floor.max(raised);
        true
    }

    /// The longest remembered prefix of the request.
    fn prefix(&self, fingerprint: &Fingerprint) -> Option<Prefix> {
        fingerprint.prefix_hashes.iter().rev().find_map(|prefix| self.prefixes.get(prefix)).copied()
    }

    /// Remembers the request's prefix, by which the next turn finds the conversation.
    fn mark(&mut self, id: SessionId, session: &mut Session, fingerprint: &Fingerprint) {
        if fingerprint.named.is_some() {
            return;
        }
        if !session.prefix_hashes.contains(&fingerprint.full_hash) {
            session.prefix_hashes.push(fingerprint.full_hash);
        }
        if session.prefix_hashes.len() > PREFIXES_MAX {
            let oldest = session.prefix_hashes.remove(0);
            self.unmark(id, oldest);
        }
        for key in &session.prefix_hashes {
            let prefix =
                self.prefixes.entry(*key).or_insert(Prefix { session: id, local_only: false });
            prefix.session = id;
            prefix.local_only |= session.local_only;
        }
    }

    fn unmark(&mut self, id: SessionId, key: u64) {
        if self.prefixes.get(&key).is_some_and(|prefix| prefix.session == id) {
            self.prefixes.remove(&key);
        }
    }

    fn take_out(&mut self, id: SessionId) -> Option<Session> {
        let session = self.by_id.remove(&id)?;
        self.order.remove(&(session.local_only, session.used));
        Some(session)
    }

    fn forget(&mut self, id: SessionId) {
        for key in self.by_id.remove(&id).map(|session| session.prefix_hashes).unwrap_or_default() {
            self.unmark(id, key);
        }
    }

    /// Forgets conversations that were idle too long, except those that must stay on this machine:
    /// they are forgotten only when room is needed.
    fn forget_old(&mut self, now: MonotonicNs) {
        while let Some((&(false, _), &id)) = self.order.first_key_value() {
            if !self.by_id.get(&id).is_some_and(|session| self.is_old(session, now)) {
                return;
            }
            self.order.pop_first();
            self.forget(id);
        }
    }

    fn is_old(&self, session: &Session, now: MonotonicNs) -> bool {
        !session.local_only && now - session.at > nanoseconds(self.limits.idle)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Key of a conversation that begins like another: `SplitMix64`'s finaliser over both numbers.
fn mix(hash: u64, count: u64) -> u64 {
    let mut mixed = hash ^ count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;
