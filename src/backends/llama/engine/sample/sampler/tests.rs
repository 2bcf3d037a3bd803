//! Tests of the sampler, some against a naive one that sorts whole vectors.

use proptest::prelude::*;

use super::*;

const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, -1.0, 2.0];

fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..Sampling::default() }
}

fn draw(sampling: Sampling, count: usize) -> Vec<usize> {
    let mut sampler = Sampler::new(sampling, &[]);
    (0..count).map(|_| sampler.sample(&LOGITS, None)).collect()
}

fn nucleus(top_p: f32, seed: u64) -> Sampling {
    Sampling { top_p, seed, ..Sampling::default() }
}

#[test]
fn temperature_zero_takes_the_first_greatest() {
    assert_eq!(draw(greedy(), 3), [1, 1, 1]);
}

#[test]
fn a_seed_repeats_and_another_differs() {
    assert_eq!(draw(nucleus(1.0, 7), 50), draw(nucleus(1.0, 7), 50));
    assert_ne!(draw(nucleus(1.0, 7), 50), draw(nucleus(1.0, 8), 50));
}

#[test]
fn frequencies_follow_the_softmax() {
    let weights: Vec<f64> = LOGITS.iter().map(|&logit| f64::from(logit).exp()).collect();
    let total: f64 = weights.iter().sum();
    for top_k in [0, 5] {
        let drawn = draw(Sampling { top_k, ..nucleus(1.0, 1) }, 20_000);
        for (token, weight) in weights.iter().enumerate() {
            let share = drawn.iter().filter(|&&t| t == token).count() as f64 / 20_000.0;
            assert!((share - weight / total).abs() < 0.02, "token {token}: {share}");
        }
    }
}

#[test]
fn the_nucleus_is_the_least_set_that_reaches_top_p() {
    // Probabilities: 0.05, 0.38, 0.14, 0.02, 0.38.
    assert!(draw(nucleus(0.7, 3), 500).iter().all(|token| [1, 4].contains(token)));
    let wider = draw(nucleus(0.85, 3), 500);
    assert!(wider.contains(&2) && !wider.contains(&0) && !wider.contains(&3));
    assert!(draw(nucleus(0.01, 3), 50).iter().all(|&token| token == 1));
}

#[test]
fn penalties_push_repeated_tokens_back() {
    let rising = Sampling { frequency_penalty: 0.6, ..greedy() };
    // 2.0, 2.0, then 1.4 each, then token 2's 1.0 beats 0.8.
    assert_eq!(draw(rising, 6), [1, 4, 1, 4, 2, 1]);
    let once = Sampling { presence_penalty: 1.5, ..greedy() };
    assert_eq!(draw(once, 6), [1, 4, 2, 1, 1, 1]);
    let halving = Sampling { repeat_penalty: 4.0, ..greedy() };
    assert_eq!(draw(halving, 4), [1, 4, 2, 1]);
}

#[test]
fn only_the_recent_tokens_of_a_prompt_are_penalised() {
    let sampling = Sampling { repeat_penalty: 4.0, ..greedy() };
    let first = |prompt: &[Token]| Sampler::new(sampling.clone(), prompt).sample(&LOGITS, None);
    assert_eq!((first(&[]), first(&[1]), first(&[1, 4])), (1, 4, 2));
    let long = [vec![1], vec![0; RECENT]].concat();
    assert_eq!((first(&long), first(&long[..RECENT])), (1, 4));
    // The other penalties ignore the prompt.
    let presence = Sampling { presence_penalty: 2.0, ..greedy() };
    assert_eq!(Sampler::new(presence, &[1]).sample(&LOGITS, None), 1);
}

#[test]
fn a_mask_leaves_only_what_it_allows() {
    let mut sampler = Sampler::new(greedy(), &[]);
    assert_eq!(sampler.sample(&LOGITS, Some(&[0b01101])), 2);
    assert_eq!(sampler.sample(&LOGITS, Some(&[0b01000])), 3);
    // A mask shorter than the vocabulary allows nothing beyond its end.
    let long: Vec<f32> = (0..100_u8).map(f32::from).collect();
    assert_eq!(sampler.sample(&long, Some(&[u32::MAX, 0b10])), 33);
}

/// The same rule, written for the eye: whole vectors, f64, sorted. Returns tokens and probabilities
/// in drawing order.
fn naive(
    sampling: &Sampling,
    past: &[usize],
    logits: &[f32],
    mask: Option<&[bool]>,
) -> Vec<(f64, usize)> {
    let mut logits: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for &(token, bias) in &sampling.logit_bias {
        logits[usize::try_from(token).unwrap()] += f64::from(bias);
    }
    for (token, logit) in logits.iter_mut().enumerate() {
        let count = past.iter().filter(|&&t| t == token).count() as f64;
        if count > 0.0 {
            let penalty = f64::from(sampling.repeat_penalty);
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            *logit -= f64::from(sampling.frequency_penalty) * count
                + f64::from(sampling.presence_penalty);
        }
        if mask.is_some_and(|mask| !mask[token]) {
            *logit = f64::NEG_INFINITY;
        }
    }
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut weights: Vec<(f64, usize)> = logits
        .iter()
        .zip(0..)
        .map(|(&logit, token)| (((logit - top) / f64::from(sampling.temperature)).exp(), token))
        .collect();
    let truncates = sampling.min_p > 0.0 || sampling.top_k > 0 || sampling.top_p < 1.0;
    if truncates {
        weights.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        weights.retain(|&(weight, _)| weight >= f64::from(sampling.min_p));
        if sampling.top_k > 0 {
            weights.truncate(sampling.top_k as usize);
        }
        let total: f64 = weights.iter().map(|&(weight, _)| weight).sum();
        let mut before = 0.0;
        weights.retain(|&(weight, _)| {
            let needed = before < f64::from(sampling.top_p) * total;
            before += weight;
            needed
        });
    }
    let total: f64 = weights.iter().map(|&(weight, _)| weight).sum();
    weights.into_iter().map(|(weight, token)| (weight / total, token)).collect()
}

prop_compose! {
    fn samplings()(
        temperature in 0.2..2.0_f32,
        top_k in prop_oneof![Just(0_u32), 1..30_u32],
        top_p in prop_oneof![Just(1.0_f32), 0.05..1.0_f32],
        min_p in prop_oneof![Just(0.0_f32), 0.001..0.5_f32],
        penalties in prop_oneof![Just((0.0_f32, 0.0_f32, 1.0_f32)), (-2.0..2.0_f32, -2.0..2.0_f32, 0.5..2.0_f32)],
        logit_bias in prop::collection::vec((0..5_i32, -3.0..3.0_f32), 0..3),
        seed: u64,
    ) -> Sampling {
        let (frequency_penalty, presence_penalty, repeat_penalty) = penalties;
        Sampling {
            temperature, top_k, top_p, min_p, frequency_penalty, presence_penalty, repeat_penalty, logit_bias, seed,
        }
    }
}

proptest! {
    /// Each sample equals that of the naive sampler with the same random number, or is at a
    /// boundary that rounding can move.
    #[test]
    fn every_sample_equals_that_of_the_naive_sampler(
        sampling in samplings(),
        logits in prop::collection::vec(-12.0..12.0_f32, 5..1500),
        masked in prop_oneof![Just(None), (1..7_usize).prop_map(Some)],
    ) {
        let mask: Option<Vec<bool>> = masked.map(|stride| (0..logits.len()).map(|t| t % stride == 0).collect());
        let words: Option<Vec<u32>> = mask.as_ref().map(|mask| {
            mask.chunks(32).map(|bits| bits.iter().rev().fold(0, |word, &bit| word << 1 | u32::from(bit))).collect()
        });
        let mut sampler = Sampler::new(sampling.clone(), &[]);
        let mut random = SplitMix64(sampling.seed);
        let mut past = Vec::new();
        for _ in 0..20 {
            let unit = random.next_unit();
            let token = sampler.sample(&logits, words.as_deref());
            let expected = naive(&sampling, &past, &logits, mask.as_deref());
            let mut end = 0.0;
            let spans: Vec<(f64, f64, usize)> = expected
                .iter()
                .map(|&(p, token)| { let start = end; end += p; (start, end, token) })
                .collect();
            // The borders of min-p, top-k and top-p may fall the other way by one token, which
            // moves all spans.
            let last = expected.last().map_or(0.0, |&(p, _)| p);
            let slack = if expected.len() < logits.len() { 1e-4 + last } else { 1e-4 };
            let near = spans.iter().any(|&(start, end, t)| t == token && start - slack <= unit && unit <= end + slack);
            prop_assert!(near, "token {} for {} of {:?}", token, unit, spans);
            past.push(token);
        }
    }
}

#[test]
fn an_answer_does_not_end_before_its_least_length() {
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }, &[]);
    sampler.hold(2, &[1]);
    let chosen: Vec<usize> = (0..3).map(|_| sampler.sample(&[0.0, 9.0, 1.0], None)).collect();
    assert_eq!(chosen, [2, 2, 1]);
}
