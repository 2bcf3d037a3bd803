//! Answers that their clients may fetch and continue: in memory, bounded in number, bytes and time,
//! and no client's to any other.
//!
//! The one that was used longest ago gives way first. A client that holds its share gives up its
//! own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::shares::{Client, Share};
use crate::units::MonotonicNs;
use crate::validate::{Diagnostics, Validate};

/// `[server.responses]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Answers of `/v1/responses` that are kept for their clients; 0: none. Default 1000.
    pub entries: u32,
    /// Bytes of all of them, with their conversations. Default 64 MiB.
    pub bytes: u64,
    /// How long one is kept that is not used, seconds. Default a day.
    pub idle_s: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { entries: 1000, bytes: 64 << 20, idle_s: 24 * 60 * 60 }
    }
}

impl Validate for StoreConfig {
    fn validate(&self, out: &mut Diagnostics) {
        out.positive([("bytes", self.bytes), ("idle_s", self.idle_s)]);
    }
}

/// Whose an answer is: the key's, wherever it is used from, else the address's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Key(u64),
    Network(u64),
}

impl From<Client> for Owner {
    fn from(client: Client) -> Self {
        client.key.map_or(Self::Network(client.network), Self::Key)
    }
}

/// An answer with its conversation.
#[derive(Debug)]
pub struct Kept {
    pub owner: Owner,
    /// The conversation before the answer, without instructions.
    pub input: Vec<Box<RawValue>>,
    /// Items of the answer.
    pub output: Vec<Box<RawValue>>,
    /// The response object.
    pub object: Bytes,
    /// The conversation must stay on this machine.
    pub local_only: bool,
    /// The client's name of the conversation.
    pub session: Option<String>,
}

impl Kept {
    fn bytes(&self) -> u64 {
        let items = self.input.iter().chain(&self.output);
        let items: usize = items.map(|item| item.get().len() + size_of::<Box<RawValue>>()).sum();
        (size_of::<Self>() + items + self.object.len()) as u64
    }
}

#[derive(Debug)]
pub struct Store {
    limits: Limits,
    kept: Mutex<Entries>,
}

#[derive(Debug)]
struct Limits {
    entries: u64,
    bytes: u64,
    share: Share,
    idle: Duration,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<String, Entry>,
    /// Order of use, the longest ago first.
    order: BTreeMap<u64, String>,
    uses: u64,
    held: Held,
    by_owner: HashMap<Owner, Held>,
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    used: u64,
    at: MonotonicNs,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    entries: u64,
    bytes: u64,
}

impl Store {
    pub fn new(config: StoreConfig, share: Share) -> Arc<Self> {
        let limits = Limits {
            entries: config.entries.into(),
            bytes: config.bytes,
            share,
            idle: Duration::from_secs(config.idle_s),
        };
        Arc::new(Self { limits, kept: Mutex::default() })
    }

    /// Keeps an answer, unless it alone is more than its client may hold.
    pub fn insert(&self, id: &str, kept: Kept, now: MonotonicNs) {
        let (bytes, owner) = (kept.bytes(), kept.owner);
        let share = |most| self.limits.share.most_for_one(most);
        let (own_entries, own_bytes) = (share(self.limits.entries), share(self.limits.bytes));
        if own_entries == 0 || bytes > own_bytes {
            return;
        }
        let mut entries = self.kept.lock();
        entries.drop_idle(self.limits.idle, now);
        entries.add(id, kept, now);
        while entries.of(owner).entries > own_entries || entries.of(owner).bytes > own_bytes {
            entries.drop_oldest(Some(owner));
        }
        let held = |entries: &Entries| entries.held;
        while held(&entries).entries > self.limits.entries
            || held(&entries).bytes > self.limits.bytes
        {
            entries.drop_oldest(None);
        }
    }

    /// The answer with this id, if it is the client's.
    pub fn get(&self, id: &str, owner: Owner, now: MonotonicNs) -> Option<Arc<Kept>> {
        let mut entries = self.kept.lock();
        entries.drop_idle(self.limits.idle, now);
        entries.touch(id, owner, now)
    }

    /// Forgets an answer; false if the client has none with this id.
    pub fn remove(&self, id: &str, owner: Owner) -> bool {
        let mut entries = self.kept.lock();
        let own = entries.by_id.get(id).is_some_and(|entry| entry.kept.owner == owner);
        own && entries.take(id).is_some()
    }
}

impl Entries {
    fn of(&self, owner: Owner) -> Held {
        self.by_owner.get(&owner).copied().unwrap_or_default()
    }

    fn add(&mut self, id: &str, kept: Kept, now: MonotonicNs) {
        self.take(id);
        self.uses += 1;
        let bytes = kept.bytes();
        for held in [&mut self.held, self.by_owner.entry(kept.owner).or_default()] {
            held.entries += 1;
            held.bytes += bytes;
        }
        self.order.insert(self.uses, id.to_owned());
        let entry = Entry { kept: Arc::new(kept), used: self.uses, at: now };
        self.by_id.insert(id.to_owned(), entry);
    }

    fn touch(&mut self, id: &str, owner: Owner, now: MonotonicNs) -> Option<Arc<Kept>> {
        let entry = self.by_id.get_mut(id).filter(|entry| entry.kept.owner == owner)?;
        self.uses += 1;
        let name = self.order.remove(&entry.used)?;
        self.order.insert(self.uses, name);
        (entry.used, entry.at) = (self.uses, now);
        Some(Arc::clone(&entry.kept))
    }

    fn take(&mut self, id: &str) -> Option<Entry> {
        let entry = self.by_id.remove(id)?;
        self.order.remove(&entry.used);
        let (bytes, owner) = (entry.kept.bytes(), entry.kept.owner);
        for held in [Some(&mut self.held), self.by_owner.get_mut(&owner)].into_iter().flatten() {
            held.entries -= 1;
            held.bytes -= bytes;
        }
        if self.of(owner).entries == 0 {
            self.by_owner.remove(&owner);
        }
        Some(entry)
    }

    fn drop_oldest(&mut self, owner: Option<Owner>) {
        let is_of = |id: &&String| {
            let of = self.by_id.get(*id).map(|entry| entry.kept.owner);
            owner.is_none() || of == owner
        };
        if let Some(id) = self.order.values().find(is_of).cloned() {
            self.take(&id);
        }
    }

    fn drop_idle(&mut self, idle: Duration, now: MonotonicNs) {
        let is_idle = |entry: &Entry| Duration::from_nanos(now - entry.at) > idle;
        while let Some(id) = self.order.values().next().cloned() {
            if !self.by_id.get(&id).is_some_and(is_idle) {
                return;
            }
            self.take(&id);
        }
    }
}

/// Where an answer will be kept.
#[derive(Debug)]
pub struct Keep {
    pub store: Arc<Store>,
    pub owner: Owner,
    pub input: Vec<Box<RawValue>>,
    pub local_only: bool,
    pub session: Option<String>,
}

impl Keep {
    pub fn keep(self, id: &str, output: Vec<Box<RawValue>>, object: Bytes) {
        let Self { store, owner, input, local_only, session } = self;
        let kept = Kept { owner, input, output, object, local_only, session };
        store.insert(id, kept, MonotonicNs::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Owner = Owner::Key(1);
    const OTHER: Owner = Owner::Network(1);

    fn kept(owner: Owner, bytes: usize) -> Kept {
        let object = Bytes::from(vec![b'x'; bytes]);
        let (input, output) = (vec![], vec![]);
        Kept { owner, input, output, object, local_only: false, session: None }
    }

    fn store(entries: u32, bytes: u64) -> Arc<Store> {
        Store::new(StoreConfig { entries, bytes, idle_s: 10 }, Share::new(1.0))
    }

    fn seconds(seconds: u64) -> MonotonicNs {
        MonotonicNs(seconds * 1_000_000_000)
    }

    fn has(store: &Store, id: &str, owner: Owner, now: MonotonicNs) -> bool {
        store.get(id, owner, now).is_some()
    }

    #[test]
    fn the_one_used_longest_ago_gives_way() {
        let store = store(2, 1 << 20);
        for id in ["a", "b"] {
            store.insert(id, kept(OWN, 1), seconds(0));
        }
        assert!(has(&store, "a", OWN, seconds(1)));
        store.insert("c", kept(OTHER, 1), seconds(2));
        let left = [("a", OWN), ("b", OWN), ("c", OTHER)];
        assert_eq!(left.map(|(id, owner)| has(&store, id, owner, seconds(3))), [true, false, true]);
    }

    #[test]
    fn bytes_are_bounded_and_what_is_too_large_alone_is_not_kept() {
        let store = store(100, 4000);
        store.insert("a", kept(OWN, 1500), seconds(0));
        store.insert("huge", kept(OWN, 5000), seconds(0));
        assert!(has(&store, "a", OWN, seconds(0)) && !has(&store, "huge", OWN, seconds(0)));
        store.insert("b", kept(OWN, 1500), seconds(0));
        store.insert("c", kept(OWN, 1500), seconds(0));
        let left = ["a", "b", "c"].map(|id| has(&store, id, OWN, seconds(0)));
        assert_eq!(left, [false, true, true]);
        assert!(store.kept.lock().held.bytes <= 4000);
    }

    #[test]
    fn a_client_that_holds_its_share_gives_up_its_own() {
        let config = StoreConfig { entries: 4, ..StoreConfig::default() };
        let store = Store::new(config, Share::new(0.5));
        store.insert("other", kept(OTHER, 1), seconds(0));
        for id in ["a", "b", "c"] {
            store.insert(id, kept(OWN, 1), seconds(1));
        }
        let left = ["a", "b", "c"].map(|id| has(&store, id, OWN, seconds(2)));
        assert_eq!(left, [false, true, true]);
        assert!(has(&store, "other", OTHER, seconds(2)));
    }

    #[test]
    fn idle_ones_and_others_clients_are_not_found() {
        let store = store(10, 1 << 20);
        store.insert("a", kept(OWN, 1), seconds(0));
        assert!(!has(&store, "a", OTHER, seconds(1)) && !store.remove("a", OTHER));
        assert!(has(&store, "a", OWN, seconds(9)), "used, so kept for longer");
        assert!(has(&store, "a", OWN, seconds(18)) && !has(&store, "a", OWN, seconds(29)));
        store.insert("b", kept(OWN, 1), seconds(30));
        assert!(store.remove("b", OWN) && !store.remove("b", OWN));
        let entries = store.kept.lock();
        assert_eq!((entries.held.bytes, entries.order.len(), entries.by_owner.len()), (0, 0, 0));
    }
}
