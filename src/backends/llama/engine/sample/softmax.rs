//! Maxima, sums and exponentials over the logits of a whole vocabulary.
//!
//! Pure and hot: runs for every token of every answer. Loops use lanes that compile to vector
//! instructions, and only requested entries are copied.

use std::cmp::Ordering;

const LANES: usize = 8;

/// A token with its logit.
pub(crate) type Scored = (f32, usize);

/// The greatest logit and its first index.
pub(crate) fn greatest(logits: &[f32]) -> Scored {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    let top = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    (top, logits.iter().position(|&logit| logit >= top).unwrap_or(0))
}

/// Σ exp((logit − `top`) × `sharpness`), where `top` is the greatest logit.
pub(crate) fn mass(logits: &[f32], top: f32, sharpness: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane += exp((logit - top) * sharpness);
        }
    }
    let rest = rest.iter().map(|&logit| exp((logit - top) * sharpness));
    lanes.into_iter().chain(rest).sum()
}

/// The `count` greatest logits of at least `floor`, in descending order, ties by index; all of them
/// if `count` is 0. Overwrites `kept`, a reused buffer.
pub(crate) fn leaders(logits: &[f32], count: usize, floor: f32, kept: &mut Vec<Scored>) {
    kept.clear();
    let most = if count == 0 { usize::MAX } else { 2 * count + 64 };
    // At least `count` others are greater than or equal to `beaten`.
    let mut beaten = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        if logit >= floor && logit > beaten {
            kept.push((logit, token));
            if kept.len() == most {
                kept.select_nth_unstable_by(count - 1, by_rank);
                kept.truncate(count);
                beaten = kept[count - 1].0;
            }
        }
    }
    kept.sort_unstable_by(by_rank);
    if count > 0 {
        kept.truncate(count);
    }
}

fn by_rank(a: &Scored, b: &Scored) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// eˣ for x ≤ 0 within 3 units in the last place; 0 below −87, where f32 has no normal numbers
/// left.
///
/// Splits x into n·ln 2 + r with |r| ≤ ln 2 / 2 (Cody and Waite's two-part ln 2) and sums the
/// Taylor series of eʳ to its sixth power, whose remainder is below 2⁻²³. Unlike the standard
/// library's, it is free of branches and calls.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding and subtracting 1.5 × 2²³ rounds to an integer, which is then in the lowest bits.
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.max(-87.0) * std::f32::consts::LOG2_E + ROUNDER;
    let whole = shifted - ROUNDER;
    let r = x.max(-87.0) - whole * LN_2_HIGH - whole * LN_2_LOW;
    let series = 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r + 1.0;
    let series = series * r + 1.0;
    // The exponent's bias is 127; higher bits are shifted out.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { series * power }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exp_is_accurate_to_four_parts_in_ten_million() {
        for step in 0..=870_000_u32 {
            let x = step as f32 * -1e-4;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / exact - 1.0).abs() < 4e-7, "exp({x}) is {exact}, not {ours}");
        }
        assert_eq!((exp(0.0), exp(-100.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        // Few distinct values, so that many are equal.
        let logit = prop_oneof![
            4 => (-60..20_i8).prop_map(|half| f32::from(half) / 2.0),
            1 => Just(f32::NEG_INFINITY),
        ];
        prop::collection::vec(logit, 1..400)
    }

    proptest! {
        #[test]
        fn greatest_and_mass_are_as_if_added_one_by_one(logits in logits(), sharpness in 0.1..4.0_f32) {
            let (top, token) = greatest(&logits);
            let first = logits.iter().position(|&l| logits.iter().all(|&m| m <= l)).unwrap();
            prop_assert_eq!((top, token), (logits[first], first));
            prop_assume!(top.is_finite());
            let expected: f64 =
                logits.iter().map(|&l| (f64::from(l - top) * f64::from(sharpness)).exp()).sum();
            let mass = f64::from(mass(&logits, top, sharpness));
            prop_assert!((mass / expected - 1.0).abs() < 1e-5, "{} {}", mass, expected);
        }

        #[test]
        fn leaders_are_the_head_of_the_sorted_logits(
            logits in logits(), count in 0..40_usize, floor in -40.0..0.0_f32,
        ) {
            let mut expected: Vec<Scored> =
                logits.iter().copied().zip(0..).filter(|&(l, _)| l >= floor).collect();
            expected.sort_by(by_rank);
            if count > 0 {
                expected.truncate(count);
            }
            let mut kept = vec![(1.0, 1)];
            leaders(&logits, count, floor, &mut kept);
            prop_assert_eq!(kept, expected);
        }
    }
}
