//! Whether a client may take more of what is shared. Pure.

use serde::{Deserialize, Serialize};

/// Who asks: an address and, behind it, a key, both as hashes that only this gateway can make.
///
/// The gateway checks no key, so a client could invent a new one for each request: what clients of
/// one address hold together is limited, too, though less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Client {
    /// Of the network address, or of the network where one client has many addresses.
    pub network: u64,
    /// Of the API key; `None` without one.
    pub key: Option<u64>,
}

/// The largest part that one client may take, above 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

/// What is held, in units of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) total: u64,
    /// By all clients of the asking one's network.
    pub(super) network: u64,
    pub(super) client: u64,
}

/// Why a client may not take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Everything is taken.
    Full,
    /// The rest is kept for others.
    Share,
}

impl Share {
    /// The default of `[server] client_share`.
    pub const DEFAULT: f64 = 0.875;

    /// A part above 1 is all.
    pub fn new(part: f64) -> Self {
        Self(part.clamp(0.0, 1.0))
    }

    /// The most of `whole` that one client can hold.
    pub fn most_for_one(self, whole: u64) -> u64 {
        whole - self.kept(whole)
    }

    /// How much of `whole` is kept for clients that hold little. 0 where the part is less than one
    /// unit.
    pub(super) fn kept(self, whole: u64) -> u64 {
        // Exact up to 2⁵³ units.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to whole")]
        let kept = (whole as f64 * (1.0 - self.0)).floor() as u64;
        // At least one unit can be taken.
        kept.min(whole.saturating_sub(1))
    }
}

impl Default for Share {
    fn default() -> Self {
        Self(Self::DEFAULT)
    }
}

/// Whether `amount` of the `whole` may be taken, of which `kept` is for clients that hold little.
pub(super) fn decide(whole: u64, kept: u64, held: Held, amount: u64) -> Result<(), Refusal> {
    let Some(left) = whole.checked_sub(held.total.saturating_add(amount)) else {
        return Err(Refusal::Full);
    };
    // Half of what is kept, so that the first newcomer does not take all of it.
    let may = |own: u64, kept: u64| left >= kept || own.saturating_add(amount) <= kept.div_ceil(2);
    if may(held.client, kept) && may(held.network, kept / 2) { Ok(()) } else { Err(Refusal::Share) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(held: Held, amount: u64) -> Held {
        Held {
            total: held.total + amount,
            network: held.network + amount,
            client: held.client + amount,
        }
    }

    #[test]
    fn a_lone_client_takes_all_but_what_is_kept_and_a_newcomer_gets_some_of_that() {
        let (whole, kept) = (72, Share::default().kept(72));
        assert_eq!(kept, 9);
        let mut lone = Held::default();
        while decide(whole, kept, lone, 1).is_ok() {
            lone = after(lone, 1);
        }
        assert_eq!(lone.client, 63);
        // Another key behind the same address, then another address.
        let key = Held { client: 0, ..lone };
        assert_eq!(decide(whole, kept, key, 5), Ok(()));
        assert_eq!(decide(whole, kept, key, 6), Err(Refusal::Share));
        let elsewhere = Held { total: 68, network: 0, client: 0 };
        assert_eq!(decide(whole, kept, elsewhere, 2), Ok(()));
        assert_eq!(decide(whole, kept, elsewhere, 5), Err(Refusal::Full));
    }

    #[test]
    fn invented_keys_do_not_take_what_is_kept_for_other_addresses() {
        let (whole, kept) = (72, 9);
        let mut held = Held::default();
        while decide(whole, kept, Held { client: 0, ..held }, 1).is_ok() {
            held = after(held, 1);
        }
        assert_eq!(whole - held.total, 4);
        assert_eq!(decide(whole, kept, Held { total: held.total, ..Held::default() }, 1), Ok(()));
    }

    #[test]
    fn few_places_and_a_share_of_everything_keep_nothing() {
        assert_eq!(Share::default().kept(7), 0);
        assert_eq!(Share::new(1.0).kept(1 << 30), 0);
        assert_eq!(Share::new(0.001).kept(1), 0);
        assert_eq!(decide(1, 0, Held::default(), 1), Ok(()));
    }

    proptest! {
        #[test]
        fn nothing_is_taken_twice_and_a_newcomer_finds_a_place_beside_any_one_client(
            whole in 8_u64..1000, part in 0.1_f64..0.875, amounts in prop::collection::vec(1_u64..40, 1..200),
        ) {
            let kept = Share::new(part).kept(whole);
            let mut held = Held::default();
            for amount in amounts {
                if decide(whole, kept, held, amount).is_ok() {
                    held = after(held, amount);
                }
                prop_assert!(held.total <= whole);
                let newcomer = Held { total: held.total, ..Held::default() };
                prop_assert_eq!(decide(whole, kept, newcomer, 1), Ok(()));
            }
        }
    }
}
