//! Apportionment of an integer into integer shares by the largest remainder method. Pure.

/// Splits `total` in proportion to `weights`, so that the shares sum to `total` exactly.
///
/// Each share is the floor of its exact part; the rest goes, one unit each, to the largest
/// remainders, ties to the smaller key. `None` if no weight is positive: the caller must book
/// `total` elsewhere. Keys must be distinct; the result keeps their order.
///
/// Computes in `u128`. Weights too large for that are shifted right until their sum fits 63 bits;
/// the total is still divided exactly, and only weights about 2⁶⁰ times smaller than the largest
/// can lose their share.
pub fn largest_remainder<K: Copy + Ord>(
    total: u64,
    weights: &[(K, u128)],
) -> Option<Vec<(K, u64)>> {
    let shift = excess_bits(weights);
    let sum: u128 = weights.iter().map(|(_, weight)| weight >> shift).sum();
    if sum == 0 {
        return None;
    }
    let mut parts: Vec<Part<K>> = weights
        .iter()
        .enumerate()
        .map(|(index, &(key, weight))| {
            let exact = u128::from(total) * (weight >> shift);
            Part { index, key, share: floor_share(exact, sum), remainder: exact % sum }
        })
        .collect();
    let given: u64 = parts.iter().map(|part| part.share).sum();
    parts.sort_unstable_by(|a, b| b.remainder.cmp(&a.remainder).then(a.key.cmp(&b.key)));
    // There are fewer units left than positive remainders, so a key without weight gets none.
    let left = usize::try_from(total - given).unwrap_or(usize::MAX);
    for part in parts.iter_mut().take(left) {
        part.share += 1;
    }
    parts.sort_unstable_by_key(|part| part.index);
    Some(parts.into_iter().map(|part| (part.key, part.share)).collect())
}

struct Part<K> {
    index: usize,
    key: K,
    share: u64,
    remainder: u128,
}

/// `exact / sum`, which never exceeds the total because no weight exceeds the sum.
fn floor_share(exact: u128, sum: u128) -> u64 {
    u64::try_from(exact / sum).unwrap_or(u64::MAX)
}

/// How far the weights must be shifted so that their sum stays below 2⁶³ and times a `u64` total
/// below 2¹²⁷.
fn excess_bits(weights: &[(impl Copy, u128)]) -> u32 {
    let widest = weights.iter().map(|(_, weight)| u128::BITS - weight.leading_zeros()).max();
    let count_bits = usize::BITS - weights.len().leading_zeros();
    (widest.unwrap_or(0) + count_bits).saturating_sub(63)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn leftovers_go_to_the_largest_remainders_and_ties_to_the_smaller_key() {
        let thirds = largest_remainder(100, &[(2, 1), (1, 1), (3, 1)]);
        assert_eq!(thirds, Some(vec![(2, 33), (1, 34), (3, 33)]));
        let uneven = largest_remainder(10, &[(1, 55), (2, 27), (3, 18)]);
        assert_eq!(uneven, Some(vec![(1, 5), (2, 3), (3, 2)]));
    }

    #[test]
    fn without_a_positive_weight_there_are_no_shares() {
        assert_eq!(largest_remainder(5, &[(1, 0), (2, 0)]), None);
        assert_eq!(largest_remainder::<u8>(5, &[]), None);
    }

    proptest! {
        #[test]
        fn shares_sum_to_the_total_whatever_the_weights(
            total: u64,
            weights in proptest::collection::vec(prop_oneof![Just(0), any::<u128>(), 0u128..1000], 1..12),
        ) {
            let keyed: Vec<(usize, u128)> = weights.iter().copied().enumerate().collect();
            match largest_remainder(total, &keyed) {
                None => prop_assert!(weights.iter().all(|&weight| weight == 0)),
                Some(shares) => {
                    let sum: u128 = shares.iter().map(|&(_, share)| u128::from(share)).sum();
                    prop_assert_eq!(sum, u128::from(total));
                    for (&(_, weight), &(_, share)) in keyed.iter().zip(&shares) {
                        prop_assert!(weight > 0 || share == 0, "no weight, no share");
                    }
                }
            }
        }

        #[test]
        fn each_share_is_within_one_of_its_exact_part(
            total in 0u64..1 << 40,
            weights in proptest::collection::vec(0u128..1 << 40, 1..12),
        ) {
            let keyed: Vec<(usize, u128)> = weights.iter().copied().enumerate().collect();
            let sum: u128 = weights.iter().sum();
            for (key, share) in largest_remainder(total, &keyed).unwrap_or_default() {
                let floor = u128::from(total) * weights[key] / sum;
                prop_assert!((floor..=floor + 1).contains(&u128::from(share)));
            }
        }

        #[test]
        fn order_and_scale_of_the_weights_do_not_matter(
            total: u64,
            weights in proptest::collection::vec(1u128..1 << 40, 1..12),
            factor in 1u128..1000,
        ) {
            let keyed: Vec<(usize, u128)> = weights.iter().copied().enumerate().collect();
            let scaled: Vec<(usize, u128)> = keyed.iter().rev().map(|&(key, weight)| (key, weight * factor)).collect();
            let mut reversed = largest_remainder(total, &scaled).unwrap();
            reversed.reverse();
            prop_assert_eq!(largest_remainder(total, &keyed).unwrap(), reversed);
        }
    }
}
