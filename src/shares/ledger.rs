//! Who holds how much of what is shared.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::decision::{Client, Held, Refusal, Share, decide};

/// Something that clients share, counted in units.
#[derive(Debug)]
pub struct Shares {
    whole: u64,
    kept: u64,
    books: Mutex<Books>,
}

/// No entry is 0, so that there are never more than units are held.
#[derive(Debug, Default)]
struct Books {
    total: u64,
    networks: HashMap<u64, u64>,
    clients: HashMap<Client, u64>,
}

impl Shares {
    pub fn new(whole: u64, share: Share) -> Arc<Self> {
        Arc::new(Self { whole, kept: share.kept(whole), books: Mutex::default() })
    }

    /// Takes `amount` for a client, until the value is dropped.
    pub fn take(self: &Arc<Self>, client: Client, amount: u64) -> Result<Taken, Refusal> {
        self.enter(client, amount)?;
        Ok(Taken { shares: Arc::clone(self), client, amount })
    }

    /// The most that one client can hold.
    pub fn most_for_one(&self) -> u64 {
        self.whole - self.kept
    }

    /// Units that are held.
    pub fn held(&self) -> u64 {
        self.books.lock().total
    }

    fn enter(&self, client: Client, amount: u64) -> Result<(), Refusal> {
        let mut books = self.books.lock();
        let held = Held {
            total: books.total,
            network: books.networks.get(&client.network).copied().unwrap_or(0),
            client: books.clients.get(&client).copied().unwrap_or(0),
        };
        decide(self.whole, self.kept, held, amount)?;
        if amount > 0 {
            books.total += amount;
            *books.networks.entry(client.network).or_default() += amount;
            *books.clients.entry(client).or_default() += amount;
        }
        Ok(())
    }

    fn leave(&self, client: Client, amount: u64) {
        let mut books = self.books.lock();
        books.total -= amount;
        subtract(&mut books.networks, &client.network, amount);
        subtract(&mut books.clients, &client, amount);
    }
}

fn subtract<K: Hash + Eq>(held: &mut HashMap<K, u64>, holder: &K, amount: u64) {
    if let Some(own) = held.get_mut(holder) {
        *own -= amount;
        if *own == 0 {
            held.remove(holder);
        }
    }
}

/// What one client holds by one request or connection.
#[derive(Debug)]
pub struct Taken {
    shares: Arc<Shares>,
    client: Client,
    amount: u64,
}

impl Taken {
    /// Takes more.
    pub fn grow(&mut self, more: u64) -> Result<(), Refusal> {
        self.shares.enter(self.client, more)?;
        self.amount += more;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shares.leave(self.client, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_free_again_and_leaves_no_entry() {
        let shares = Shares::new(16, Share::new(0.5));
        let [one, other] = [1, 2].map(|network| Client { network, key: None });
        let mut taken = shares.take(one, 3).unwrap();
        taken.grow(5).unwrap();
        assert_eq!((taken.grow(1), shares.held()), (Err(Refusal::Share), 8));
        let theirs = shares.take(other, 4).unwrap();
        assert_eq!(shares.take(other, 5).unwrap_err(), Refusal::Full);
        drop((taken, theirs));
        let books = shares.books.lock();
        assert_eq!((books.total, books.networks.len(), books.clients.len()), (0, 0, 0));
    }
}
