//! Fairness of attribution in a batch: attributed energy compared with Shapley values, in simulated
//! engines whose costs are known.
//!
//! Token weights are a simplification: the requests of a step share a fixed cost, several tokens of
//! a step may cost less or more than one by one, and attention grows with the context. The weights
//! are fitted as in service, by the least squares of `measure` on waves of the same engine, and
//! then shifted by 30 % each.

use std::sync::Arc;
use std::time::Duration;

use wattgate::energy::attribution::shortfall::Tally;
use wattgate::energy::attribution::{Attribution, DeviceId, Parameters};
use wattgate::energy::prediction::profile::{Cost, Linear, ModelProfile, Profile};
use wattgate::energy::sensors::process::cpu_model::CpuModel;
use wattgate::energy::sensors::sensor::{Band, DeviceInfo, Sample};
use wattgate::energy::{Config, Quality, Scope, Source, Tokens, WorkRow, WorkSpan};
use wattgate::measure::least_squares::{Equation, non_negative};
use wattgate::units::{AttemptId, Joules, Microjoules, MonotonicNs};

const BATCH_TOKENS: u64 = 256;
const CADENCE_MS: u64 = 50;

#[derive(Clone, Copy)]
struct Request {
    /// Arrival, in steps after the start.
    arrives: u64,
    prompt: u64,
    output: u64,
}

/// The share of one request in one step.
#[derive(Clone, Copy)]
struct Part {
    request: usize,
    tokens: Tokens,
    /// Tokens in its context before the step.
    context: u64,
}

/// The load of a step: prefill and decode rows, and the context that they attend to.
#[derive(Clone, Copy, Default)]
struct Load {
    prefill: f64,
    decode: f64,
    /// Tokens in the contexts of decoding requests.
    attended: f64,
}

/// How a simulated machine computes a step.
#[derive(Clone, Copy, Debug)]
enum Engine {
    /// `SmolLM2` on two cores: the weights are read once per step, each token is computed
    /// separately.
    Cores,
    /// A GPU: reading the weights hides the compute of small batches; compute draws more power than
    /// waiting.
    Card,
    /// Tokens that cost less together, and prompts that slow down concurrent decodes.
    Uneven,
}

impl Engine {
    /// Milliseconds of a step and its joules; zero for an empty one.
    fn step(self, load: Load) -> (f64, f64) {
        let Load { prefill, decode, attended } = load;
        if prefill + decode == 0.0 {
            return (0.0, 0.0);
        }
        match self {
            Self::Cores => {
                let ms = 7.5 + 2.0 * prefill + 5.2 * decode + 0.004 * attended;
                (ms, ms * 6.6e-3)
            }
            Self::Card => {
                let computing = 0.03 * prefill + 0.05 * decode;
                let ms = f64::max(4.0, computing) + 0.000_4 * attended;
                (ms, (ms + computing) * 0.15)
            }
            Self::Uneven => {
                let together = 2.0 * prefill.powf(0.97) + 5.2 * decode.powf(0.8);
                let ms = 7.5 + together + 0.004 * attended + 0.01 * prefill * decode;
                (ms, ms * 6.6e-3)
            }
        }
    }

    fn joules(self, parts: &[Part], members: usize) -> f64 {
        self.step(load_of(parts, members)).1
    }
}

/// The load of a step with the requests in `members` only.
fn load_of(parts: &[Part], members: usize) -> Load {
    let there = parts.iter().filter(|part| members >> part.request & 1 == 1);
    there.fold(Load::default(), |load, part| {
        let decode = part.tokens.decode as f64;
        Load {
            prefill: load.prefill + part.tokens.prefill as f64,
            decode: load.decode + decode,
            attended: load.attended + decode * part.context as f64,
        }
    })
}

/// A continuous-batching schedule: prompts in order of arrival as far as a step has room, one token
/// for each decoding request.
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
fn shapley(engine: Engine, steps: &[Vec<Part>], count: usize) -> Vec<f64> {
    let factorial = |n: usize| (1..=n).map(|factor| factor as f64).product::<f64>();
    let mut values = vec![0.0; count];
    for parts in steps {
        for coalition in 0..1_usize << count {
            let size = coalition.count_ones() as usize;
            let without = engine.joules(parts, coalition);
            for (player, value) in values.iter_mut().enumerate() {
                if coalition >> player & 1 == 0 {
                    let share = factorial(size) * factorial(count - size - 1) / factorial(count);
                    let with = engine.joules(parts, coalition | 1 << player);
                    *value += share * (with - without);
                }
            }
        }
    }
    values
}

/// Energy that the meter's attribution attribute to each request.
fn attributed(engine: Engine, steps: &[Vec<Part>], count: usize, weights: Linear) -> Vec<f64> {
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
    let mut attribution = Attribution::new(Parameters {
        cadence: Duration::from_millis(CADENCE_MS),
        weights: config.token_weights(),
        prior: config.prior_cost(),
        profile: Arc::new(profile),
        cpu_model: CpuModel::DEFAULT,
        source: Source::CpuModel,
        per_engine: false,
        missing: Tally::default(),
    });
    let name: Arc<str> = "m".into();
    let info = DeviceInfo {
        name: "engine:m".into(),
        source: Source::CpuModel,
        quality: Quality::Estimated,
        band: Band::EXACT,
        idle: None,
    };
    let device = attribution.add_device(info, Scope::Engine(Arc::clone(&name)), MonotonicNs(0));
    for id in 0..count {
        attribution.open(&name, AttemptId(id as u64), MonotonicNs(0));
    }
    let (mut now_ms, mut joules, mut next_reading_ms) = (0.0, 0.0, CADENCE_MS);
    for parts in steps {
        let (ms, more) = engine.step(load_of(parts, usize::MAX));
        let end_ms = now_ms + ms;
        let rows = parts.iter().map(|part| WorkRow {
            attempt: AttemptId(part.request as u64),
            prefill_tokens: u32::try_from(part.tokens.prefill).unwrap(),
            decode_tokens: u32::try_from(part.tokens.decode).unwrap(),
        });
        let span = WorkSpan { start: at(now_ms), end: at(end_ms), rows: rows.collect() };
        attribution.work(&name, span, at(end_ms));
        while next_reading_ms as f64 <= end_ms {
            let part = (next_reading_ms as f64 - now_ms) / ms;
            read(&mut attribution, device, next_reading_ms as f64, joules + more * part);
            next_reading_ms += CADENCE_MS;
        }
        (now_ms, joules) = (end_ms, joules + more);
    }
    (0..count).for_each(|id| attribution.close(&name, AttemptId(id as u64), at(now_ms)));
    // After the end of the last step.
    now_ms += 1e-3;
    read(&mut attribution, device, now_ms, joules);
    let mut settled = attribution.settle(at(now_ms), count);
    assert_eq!((settled.len(), attribution.conservation_error()), (count, Microjoules(0)));
    settled.sort_by_key(|settled| settled.attempt);
    settled.into_iter().map(|settled| settled.marginal.joules.unwrap().0).collect()
}

fn at(ms: f64) -> MonotonicNs {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
    MonotonicNs((ms * 1e6) as u64)
}

fn read(attribution: &mut Attribution, device: DeviceId, ms: f64, joules: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few joules")]
    let total = Microjoules((joules * 1e6) as u64);
    attribution.reading(device, at(ms), Sample { at: at(ms), total, whole: true });
}

/// Lengths of prompts.
#[derive(Clone, Copy, Debug)]
enum Prompts {
    Short,
    /// Every second prompt has thousands of tokens.
    Mixed,
}

fn requests(random: &mut Dice, count: usize, prompts: Prompts, together: bool) -> Vec<Request> {
    let request = |_| Request {
        arrives: if together { 0 } else { random.up_to(60) },
        prompt: match prompts {
            Prompts::Mixed if random.up_to(1) == 1 => 2000 + random.up_to(4000),
            _ => 16 + random.up_to(240),
        },
        output: 8 + random.up_to(88),
    };
    (0..count).map(request).collect()
}

/// A fixed pseudo-random sequence: splitmix64.
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

/// Joules per token as `measure` fits them: from the energy of whole waves of eight.
fn fitted(engine: Engine, random: &mut Dice, prompts: Prompts) -> Linear {
    let waves = (0..40).filter_map(|_| {
        let wave = requests(random, 8, prompts, true);
        let joules: f64 =
            schedule(&wave).iter().map(|parts| engine.joules(parts, usize::MAX)).sum();
        let sum = |of: fn(&Request) -> u64| wave.iter().map(of).sum::<u64>() as f64;
        Equation::relative([8.0, sum(|one| one.prompt), sum(|one| one.output)], joules)
    });
    let [fixed, prefill_token, decode_token] = non_negative(&waves.collect::<Vec<_>>()).unwrap();
    Linear { fixed, prefill_token, decode_token }
}

/// Mean absolute error of attributed energy relative to the Shapley value, and that of an equal
/// split.
fn errors(engine: Engine, prompts: Prompts, [prefill, decode]: [f64; 2]) -> (f64, f64) {
    let mut random = Dice(7);
    let fit = fitted(engine, &mut random, prompts);
    let weights = Linear {
        prefill_token: fit.prefill_token * prefill,
        decode_token: fit.decode_token * decode,
        ..fit
    };
    let (mut error, mut total, mut equal_error) = (0.0, 0.0, 0.0);
    for scene in 0..28 {
        let count = 2 + scene % 7;
        let steps = schedule(&requests(&mut random, count, prompts, false));
        let fair = shapley(engine, &steps, count);
        let given = attributed(engine, &steps, count, weights);
        let all: f64 = fair.iter().sum();
        assert!((given.iter().sum::<f64>() - all).abs() < 1e-3, "all of it is given");
        error += fair.iter().zip(&given).map(|(fair, given)| (fair - given).abs()).sum::<f64>();
        equal_error += fair.iter().map(|fair| (fair - all / count as f64).abs()).sum::<f64>();
        total += all;
    }
    (error / total, equal_error / total)
}

/// Factors on the fitted weights of prompt and output tokens: none, and 30 % in opposite
/// directions, with the error allowed for each.
const WEIGHTS: [([f64; 2], f64); 3] = [([1.0, 1.0], 0.10), ([1.3, 0.7], 0.15), ([0.7, 1.3], 0.15)];

#[test]
fn attribution_is_within_ten_percent_of_shapley_values() {
    for engine in [Engine::Cores, Engine::Card, Engine::Uneven] {
        for (wrong, allowed) in WEIGHTS {
            let (error, equal) = errors(engine, Prompts::Short, wrong);
            let (percent, other) = (error * 100.0, equal * 100.0);
            println!("{engine:?} {wrong:?}: {percent:.2} % (an equal split: {other:.1} %)");
            assert!(error <= allowed, "{engine:?} {wrong:?} {error}");
            assert!(equal > 3.0 * error, "the requests differ enough to tell: {equal}");
        }
    }
}

/// A token that attends to thousands of others costs more than one that does not, but has the same
/// weight: the limit of weights by token.
#[test]
fn attribution_is_less_fair_with_mixed_context_lengths() {
    for engine in [Engine::Cores, Engine::Card, Engine::Uneven] {
        let (error, equal) = errors(engine, Prompts::Mixed, [1.0, 1.0]);
        let (percent, other) = (error * 100.0, equal * 100.0);
        println!("{engine:?}, long and short: {percent:.2} % (an equal split: {other:.1} %)");
        assert!(error <= 0.15 && equal > 3.0 * error, "{engine:?} {error} {equal}");
    }
}
