//! Means, ratios of means and their bootstrap intervals. Pure and seeded: the same rows give the
//! same figures.
//!
//! Questions are resampled, not rows, because answers to one question are alike. The intervals
//! cover the choice of questions. They exclude sensor errors, which move all rows alike.

use serde::Serialize;

/// Bootstrap resamplings: the ends of a 95 % interval are known to a few percent of its width.
const RESAMPLES: usize = 2000;

/// A figure with its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// From the 2.5 % to the 97.5 % quantile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// Sums of two quantities over the rows of one question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    pub above: f64,
    pub below: f64,
}

/// `Σ above / Σ below` over questions: a mean if `below` counts rows, else a ratio of means. `None`
/// without rows or if the sum below is 0.
pub fn ratio(questions: &[Pair], seed: u64) -> Option<Estimate> {
    let value = quotient(questions)?;
    let [Interval { low, high }] =
        bootstrap(questions, RESAMPLES, seed, |drawn| Some([quotient(drawn.iter().copied())?]))?;
    Some(Estimate { value, low, high })
}

/// A share with its 95 % Wilson interval, which does not collapse where all or none of few trials
/// succeed (E. B. Wilson, JASA 1927). `None` without trials.
pub fn share(successes: f64, trials: f64) -> Option<Estimate> {
    /// The 97.5 % quantile of the normal distribution.
    const Z: f64 = 1.959_964;
    if trials <= 0.0 {
        return None;
    }
    let value = successes / trials;
    let shrink = 1.0 + Z * Z / trials;
    let middle = (value + Z * Z / (2.0 * trials)) / shrink;
    let half =
        Z / shrink * (value * (1.0 - value) / trials + Z * Z / (4.0 * trials * trials)).sqrt();
    Some(Estimate { value, low: (middle - half).max(0.0), high: (middle + half).min(1.0) })
}

/// `1 / (mean a · mean b)` of two quantities over questions, each a mean itself. `None` if it is
/// not finite.
pub fn inverse_product(questions: &[(Pair, Pair)], seed: u64) -> Option<Estimate> {
    let figure = |drawn: &mut dyn Iterator<Item = &(Pair, Pair)>| {
        let (a, b): (Vec<Pair>, Vec<Pair>) = drawn.copied().unzip();
        Some(1.0 / (quotient(&a)? * quotient(&b)?)).filter(|value| value.is_finite())
    };
    let value = figure(&mut questions.iter())?;
    let [Interval { low, high }] =
        bootstrap(questions, RESAMPLES, seed, |drawn| Some([figure(&mut drawn.iter().copied())?]))?;
    Some(Estimate { value, low, high })
}

/// Standard deviation of a few values; `None` for fewer than two.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt())
}

/// 95 % bootstrap intervals of `figures` over questions. `None` if no draw yields any.
pub fn bootstrap<Q, const N: usize>(
    questions: &[Q],
    resamples: usize,
    seed: u64,
    figures: impl Fn(&[&Q]) -> Option<[f64; N]>,
) -> Option<[Interval; N]> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut found: Vec<[f64; N]> = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        let one = |_| &questions[random.usize(..questions.len())];
        let drawn: Vec<&Q> = (0..questions.len()).map(one).collect();
        found.extend(figures(&drawn));
    }
    if found.is_empty() {
        return None;
    }
    Some(std::array::from_fn(|place| {
        let mut values: Vec<f64> = found.iter().map(|figures| figures[place]).collect();
        values.sort_by(f64::total_cmp);
        let end = |share| quantile(&values, share).unwrap_or_default();
        Interval { low: end(0.025), high: end(0.975) }
    }))
}

fn quotient<'a>(pairs: impl IntoIterator<Item = &'a Pair>) -> Option<f64> {
    let (above, below) = pairs
        .into_iter()
        .fold((0.0, 0.0), |(above, below), pair| (above + pair.above, below + pair.below));
    (below > 0.0).then_some(above / below)
}

/// The `share` quantile of sorted values, interpolated; `None` without values.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share.clamp(0.0, 1.0) * (sorted.len().checked_sub(1)? as f64);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to the last index"
    )]
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    Some(sorted[below] + (place - place.floor()) * (sorted[above] - sorted[below]))
}

/// [`quantile`] of unsorted values.
pub fn quantile_of(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    quantile(&values, share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_means_is_not_a_mean_of_ratios() {
        let pairs = [Pair { above: 1.0, below: 1.0 }, Pair { above: 0.0, below: 3.0 }];
        let ratio = ratio(&pairs, 1).unwrap();
        assert_eq!(ratio.value.to_bits(), 0.25_f64.to_bits());
        assert!(ratio.low <= 0.25 && 0.25 <= ratio.high && ratio.low < ratio.high);
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        // Repeated means of 40 coin flips with p = 0.3: about 95 % of the intervals contain 0.3.
        let covered = (0..200_u64)
            .filter(|&trial| {
                let mut coin = fastrand::Rng::with_seed(1000 + trial);
                let flips: Vec<Pair> = (0..40)
                    .map(|_| Pair { above: f64::from(u8::from(coin.f64() < 0.3)), below: 1.0 })
                    .collect();
                let found = ratio(&flips, trial).unwrap();
                found.low <= 0.3 && 0.3 <= found.high
            })
            .count();
        assert!((180..=198).contains(&covered), "{covered} of 200");
    }

    /// Values of Newcombe, Statistics in Medicine 1998, table I.
    #[test]
    fn a_share_of_few_is_not_certain() {
        let ends = |successes, trials| {
            let Estimate { low, high, .. } = share(successes, trials).unwrap();
            format!("{low:.4} {high:.4}")
        };
        assert_eq!(ends(81.0, 263.0), "0.2553 0.3662");
        assert_eq!(ends(15.0, 148.0), "0.0624 0.1605");
        assert_eq!(ends(0.0, 20.0), "0.0000 0.1611");
        assert_eq!(ends(3.0, 3.0), "0.4385 1.0000");
        assert_eq!(share(0.0, 0.0), None);
    }

    #[test]
    fn an_inverse_product_has_an_interval_and_a_single_repeat_no_deviation() {
        let question = |a, b| (Pair { above: a, below: 1.0 }, Pair { above: b, below: 1.0 });
        let found = inverse_product(&[question(2.0, 4.0), question(4.0, 6.0)], 1).unwrap();
        assert!((found.value - 1.0 / 15.0).abs() < 1e-12, "{found:?}");
        assert!(found.low < found.value && found.value < found.high);
        assert_eq!(inverse_product(&[question(0.0, 1.0)], 1), None);
        assert_eq!((deviation(&[1.0]), deviation(&[1.0, 3.0])), (None, Some(2.0_f64.sqrt())));
    }

    #[test]
    fn a_seed_makes_it_repeatable_and_nothing_gives_nothing() {
        let pairs: Vec<Pair> =
            (0..20_u8).map(|n| Pair { above: f64::from(n), below: 1.0 }).collect();
        assert_eq!(ratio(&pairs, 7), ratio(&pairs, 7));
        assert_ne!(ratio(&pairs, 7), ratio(&pairs, 8));
        assert_eq!(ratio(&[], 1), None);
        assert_eq!(ratio(&[Pair { above: 1.0, below: 0.0 }], 1), None);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 0.25), Some(1.5));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
