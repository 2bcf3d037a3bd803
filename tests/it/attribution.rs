//! How fair the split of a batch is: attributed energy beside Shapley values, in a simulated engine whose costs are known.
//!
//! The weights come the way they do in service: fitted by `measure`'s own least squares on waves of the same engine.

use std::sync::Arc;
use std::time::Duration;

use wattgate::energy::accounts::{Accounts, DeviceId, Settings};
use wattgate::energy::cpu_model::CpuModel;
use wattgate::energy::profile::{Cost, Linear, ModelProfile, Profile};
use wattgate::energy::sensor::{Band, DeviceInfo, Sample};
use wattgate::energy::{Config, Quality, Serves, Source, Tokens, WorkRow, WorkSpan};
use wattgate::measure::least_squares::{Equation, non_negative};
use wattgate::units::{AttemptId, Joules, Microjoules, MonotonicNs};

/// Draw of the simulated machine while it computes.
const WATTS: f64 = 6.6;
const BATCH_TOKENS: u64 = 256;
const CADENCE_MS: u64 = 50;

#[derive(Clone, Copy)]
struct Request {
    /// Steps after the start.
    arrives: u64,
    prompt: u64,
    output: u64,
}

/// What one request had of one step.
#[derive(Clone, Copy)]
struct Part {
    request: usize,
    tokens: Tokens,
    /// Tokens it had in its context before.
    context: u64,
}

/// Milliseconds of a step: reading the weights once for all (as for SmolLM2 on two cores), computing each token, and
/// attending to what came before. Whoever is not in `members` does not exist.
fn step_ms(parts: &[Part], members: usize) -> f64 {
    let parts = parts.iter().filter(|part| members >> part.request & 1 == 1);
    let each = parts.map(|part| {
        let Tokens { prefill, decode } = part.tokens;
        2.0 * prefill as f64 + decode as f64 * (5.2 + 0.004 * part.context as f64)
    });
    each.fold(0.0, |sum, ms| if sum == 0.0 { 7.5 + ms } else { sum + ms })
}

/// A continuous-batching schedule: prompts in order of arrival as far as a step has room, one token for all who write.
fn schedule(requests: &[Request]) -> Vec<Vec<Part>> {
    let mut done: Vec<(u64, u64)> = vec![(0, 0); requests.len()];
    let mut steps = Vec::new();
    while done.iter().zip(requests).any(|((_, output), request)| *output < request.output) {
        let (mut room, mut parts) = (BATCH_TOKENS, Vec::new());
        for (index, request) in requests.iter().enumerate() {
            let (prompt, output) = done[index];
            if request.arrives > steps.len() as u64 || output == request.output || room == 0 {
                continue;
            }
            let tokens = if prompt < request.prompt {
                Tokens { prefill: (request.prompt - prompt).min(room), decode: 0 }
            } else {
                Tokens { prefill: 0, decode: 1 }
            };
            room -= tokens.prefill + tokens.decode;
            parts.push(Part { request: index, tokens, context: prompt + output });
            done[index] = (prompt + tokens.prefill, output + tokens.decode);
        }
        steps.push(parts);
    }
    steps
}

/// Exact Shapley values in joules: every coalition of the requests of each step.
fn shapley(steps: &[Vec<Part>], count: usize) -> Vec<f64> {
    let factorial = |n: usize| (1..=n).map(|factor| factor as f64).product::<f64>();
    let mut values = vec![0.0; count];
    for parts in steps {
        for coalition in 0..1_usize << count {
            let size = coalition.count_ones() as usize;
            let without = step_ms(parts, coalition);
            for (player, value) in values.iter_mut().enumerate() {
                if coalition >> player & 1 == 0 {
                    let share = factorial(size) * factorial(count - size - 1) / factorial(count);
                    *value +=
                        share * (step_ms(parts, coalition | 1 << player) - without) * WATTS / 1e3;
                }
            }
        }
    }
    values
}

/// What the meter's books give each request.
fn attributed(steps: &[Vec<Part>], count: usize, weights: Linear) -> Vec<f64> {
    let seconds = Linear { fixed: 0.0, prefill_token: 0.002, decode_token: 0.006 };
    let cost = Cost {
        batch: 8,
        requests: 100,
        total_joules: Joules(100.0),
        low: 1.0,
        high: 1.0,
        median_error: 0.0,
        p90_error: 0.0,
        joules: Some(weights),
        seconds,
    };
    let model = ModelProfile {
        measured: String::new(),
        file: None,
        quality: Quality::Estimated,
        source: Source::CpuModel,
        load_joules: None,
        idle_watts: None,
        alone: cost,
        batched: Some(cost),
    };
    let profile = Profile { models: [("m".to_owned(), model)].into(), ..Profile::default() };
    let config = Config::default();
    let mut accounts = Accounts::new(Settings {
        cadence: Duration::from_millis(CADENCE_MS),
        weights: config.token_weights(),
        prior: config.prior_cost(),
        profile: Arc::new(profile),
        cpu_model: CpuModel::DEFAULT,
        source: Source::CpuModel,
    });
    let name: Arc<str> = "m".into();
    let info = DeviceInfo {
        name: "engine:m".into(),
        source: Source::CpuModel,
        quality: Quality::Estimated,
        band: Band::EXACT,
        idle: None,
    };
    let device = accounts.add_device(info, Serves::Engine(Arc::clone(&name)), MonotonicNs(0));
    for id in 0..count {
        accounts.open(&name, AttemptId(id as u64), MonotonicNs(0));
    }
    let (mut now_ms, mut next_reading_ms) = (0.0, CADENCE_MS);
    for parts in steps {
        let end_ms = now_ms + step_ms(parts, usize::MAX);
        let rows = parts.iter().map(|part| WorkRow {
            attempt: AttemptId(part.request as u64),
            prefill_tokens: u32::try_from(part.tokens.prefill).unwrap(),
            decode_tokens: u32::try_from(part.tokens.decode).unwrap(),
        });
        let span = WorkSpan { start: at(now_ms), end: at(end_ms), rows: rows.collect() };
        accounts.work(&name, span, at(end_ms));
        now_ms = end_ms;
        while next_reading_ms as f64 <= now_ms {
            read(&mut accounts, device, next_reading_ms as f64);
            next_reading_ms += CADENCE_MS;
        }
    }
    (0..count).for_each(|id| accounts.close(&name, AttemptId(id as u64), at(now_ms)));
    read(&mut accounts, device, now_ms);
    let mut settled = accounts.settle(at(now_ms), count);
    assert_eq!((settled.len(), accounts.conservation_error()), (count, Microjoules(0)));
    settled.sort_by_key(|settled| settled.attempt);
    settled.into_iter().map(|settled| settled.marginal.joules.unwrap().0).collect()
}

fn at(ms: f64) -> MonotonicNs {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
    MonotonicNs((ms * 1e6) as u64)
}

fn read(accounts: &mut Accounts, device: DeviceId, ms: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few joules")]
    let total = Microjoules((ms * WATTS * 1e3) as u64);
    accounts.reading(device, at(ms), Sample { at: at(ms), total, whole: true }, 0);
}

fn requests(random: &mut Dice, count: usize, together: bool) -> Vec<Request> {
    let request = |_| Request {
        arrives: if together { 0 } else { random.up_to(60) },
        prompt: 16 + random.up_to(240),
        output: 8 + random.up_to(88),
    };
    (0..count).map(request).collect()
}

/// A fixed sequence that looks random: splitmix64.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % (most + 1)
    }
}

/// Joules per token as `measure` finds them: from what whole waves of eight took.
fn fitted(random: &mut Dice) -> Linear {
    let waves = (0..40).filter_map(|_| {
        let wave = requests(random, 8, true);
        let joules: f64 =
            schedule(&wave).iter().map(|parts| step_ms(parts, usize::MAX) * WATTS / 1e3).sum();
        let sum = |of: fn(&Request) -> u64| wave.iter().map(of).sum::<u64>() as f64;
        Equation::relative([8.0, sum(|one| one.prompt), sum(|one| one.output)], joules)
    });
    let [fixed, prefill_token, decode_token] = non_negative(&waves.collect::<Vec<_>>()).unwrap();
    Linear { fixed, prefill_token, decode_token }
}

#[test]
fn attribution_is_within_ten_percent_of_shapley_values() {
    let mut random = Dice(7);
    let weights = fitted(&mut random);
    let (mut error, mut total, mut equal_error) = (0.0, 0.0, 0.0);
    for scene in 0..40 {
        let count = 2 + scene % 7;
        let requests = requests(&mut random, count, false);
        let steps = schedule(&requests);
        let (fair, given) = (shapley(&steps, count), attributed(&steps, count, weights));
        let all: f64 = fair.iter().sum();
        assert!((given.iter().sum::<f64>() - all).abs() < 1e-3, "all of it is given");
        error += fair.iter().zip(&given).map(|(fair, given)| (fair - given).abs()).sum::<f64>();
        equal_error += fair.iter().map(|fair| (fair - all / count as f64).abs()).sum::<f64>();
        total += all;
    }
    let (error, equal_error) = (error / total, equal_error / total);
    println!(
        "mean absolute error {:.2} % (an equal split: {:.1} %)",
        error * 100.0,
        equal_error * 100.0
    );
    assert!(error <= 0.10, "{error}");
    assert!(equal_error > 3.0 * error, "the requests differ enough to tell: {equal_error}");
}
