//! The cascade on the real SmolLM2 against routing by the prompt alone: quality for the same
//! joules. Minutes long, so ignored by default: `make cascade-curve` runs it and rewrites
//! `router-models/cascade/`.
//!
//! The better model is a mock that is correct by rule, and its joules are ASSUMED, from the table
//! of cloud classes. SmolLM2's answers, confidence and energy are real.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use wattgate::energy::prediction::cloud_table::{Class, OwnFigures, estimate};
use wattgate::openai::Usage;
use wattgate::routing::Signals;
use wattgate::train::cascade::{Example, fit, held_out_scores};

use crate::rig::app::{TestApp, ask, cloud_model};
use crate::rig::local_models::smol;
use crate::rig::mock_upstream::{MockUpstream, Mode};

const QUESTIONS: &str = include_str!("../../data/cascade/questions.jsonl");
const OUT: &str = "router-models/cascade";
/// Classes in the table of cloud energy that may stand for the better model.
const CLASSES: [(&str, Class); 2] = [("large", Class::Large), ("frontier", Class::Frontier)];
const SEEDS: u64 = 20;
const FLOORS: [f64; 4] = [0.5, 0.6, 0.7, 0.8];
/// Both policies start with SmolLM2; one shows every answer, the other drops every answer.
const POLICIES: &str = "[policies.show]
[policies.show.cascade]
threshold = 0.0
min_p = 0.0
[policies.drop]
[policies.drop.cascade]
threshold = 1.0
min_p = 0.0
";

#[derive(Deserialize)]
struct Question {
    id: String,
    domain: String,
    prompt: String,
    answers: Vec<String>,
}

impl Question {
    /// Whether `text` holds one of the answers as a word of its own, whatever its case; for a
    /// symbol the case counts.
    fn is_answered_by(&self, text: &str) -> bool {
        let words = |text: &str| -> Vec<String> {
            let cut = |c: char| !(c.is_alphanumeric());
            text.split(cut).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let folded = |text: &str| {
            if self.domain == "symbols" { text.to_owned() } else { text.to_lowercase() }
        };
        let said = words(&folded(text));
        self.answers.iter().any(|answer| {
            let wanted = words(&folded(answer));
            said.windows(wanted.len()).any(|window| window == wanted)
        })
    }
}

/// Results of both models for one question.
struct Trial {
    example: Example,
    local_joules: f64,
    /// Of a local answer that is dropped after its first tokens.
    wasted_joules: f64,
    /// Of the better model's answer.
    usage: Usage,
}

impl Trial {
    fn cloud_joules(&self, class: Class) -> f64 {
        let Usage { prompt_tokens, completion_tokens, .. } = self.usage;
        estimate(OwnFigures::default().over(Some(class)), prompt_tokens, 0, completion_tokens)
            .joules
            .unwrap()
            .0
    }
}

#[test]
fn answers_are_matched_as_whole_words() {
    let question = |domain: &str, answer: &str| Question {
        id: "q".into(),
        domain: domain.into(),
        prompt: String::new(),
        answers: vec![answer.into()],
    };
    assert!(question("capitals", "Buenos Aires").is_answered_by("It is buenos aires."));
    assert!(!question("sums", "5").is_answered_by("2 + 3 = 15"));
    assert!(!question("symbols", "H").is_answered_by("the letter h"));
    let all: Vec<Question> = questions();
    assert!(all.len() > 200 && all.iter().all(|one| !one.answers.is_empty()));
}

fn questions() -> Vec<Question> {
    QUESTIONS.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
#[ignore = "asks the real model some hundred questions; writes router-models/cascade"]
async fn cascade_beats_routing_by_prompt_at_equal_joules() {
    let trials = trials().await;
    let good = trials.iter().filter(|trial| trial.example.score > 0.5).count();
    let examples: Vec<Example> = trials.iter().map(|trial| trial.example.clone()).collect();
    let fitted = fit(&[("smollm2-135m".to_owned(), examples.clone())].into(), 1).unwrap();
    let (own, model) = (&fitted.reports[0], own_mean(&trials));
    let mut summary = json!({
        "questions": trials.len(),
        "smollm2_right": good,
        "smollm2_joules_per_answer": model.0,
        "joules_per_dropped_answer": model.1,
        "held_out_auc_of_first_tokens": own.auc,
        "auc_of_prompt": own.auc_of_prompt,
        "better_model": "rule-correct stand-in, its joules assumed from the table of classes",
    });
    std::fs::create_dir_all(OUT).unwrap();
    for (name, class) in CLASSES {
        let prompt = Curve::of(&trials, class, |trial| trial.example.p, By::Prompt);
        // Held out: each answer is scored by weights that have not seen it, and over many splits.
        let (mut cascade, mut gains) = (Curve::default(), Vec::new());
        let mut at_floors = FLOORS.map(|_| Operating::default());
        for seed in 0..SEEDS {
            let scores = held_out_scores(&examples, seed).unwrap();
            let by_id: BTreeMap<&str, f64> =
                examples.iter().map(|one| one.id.as_str()).zip(scores).collect();
            let score = |trial: &Trial| by_id[trial.example.id.as_str()];
            let one = Curve::of(&trials, class, score, By::Tokens);
            gains.push(prompt.gain_of(&one));
            cascade.add(&one);
            for (sum, floor) in at_floors.iter_mut().zip(FLOORS) {
                sum.add(&Operating::of(&trials, class, score, floor));
            }
        }
        cascade.scale(1.0 / SEEDS as f64);
        let chance = Curve::chance(&trials, class);
        let thresholds: Vec<Value> = FLOORS
            .iter()
            .zip(&at_floors)
            .map(|(floor, sum)| sum.against(*floor, &prompt, &chance))
            .collect();
        write_csv(&Path::new(OUT).join(format!("{name}.csv")), &cascade, &prompt, &chance);
        let picture = svg(&cascade, &prompt, &chance);
        std::fs::write(Path::new(OUT).join(format!("{name}.svg")), picture).unwrap();
        let mean = gains.iter().sum::<f64>() / gains.len() as f64;
        summary[name] = json!({
            "mean_quality_gain_at_equal_joules": mean,
            "least_of_20_splits": gains.iter().copied().fold(f64::INFINITY, f64::min),
            "better_up_to_this_share_of_the_range": prompt.better_up_to(&cascade),
            "where_the_floor_is_the_threshold": thresholds,
        });
        assert!(mean > 0.0, "{summary}");
    }
    write_json("summary.json", &summary);
    write_json("fit.json", &serde_json::to_value(&fitted.reports).unwrap());
    let weights = wattgate::routing::Confidence::new(fitted.weights);
    write_json("cascade.json", &serde_json::to_value(&weights).unwrap());
}

fn write_json(name: &str, value: &Value) {
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    std::fs::write(Path::new(OUT).join(name), text).unwrap();
}

/// Mean joules of SmolLM2's answers, whole and dropped.
fn own_mean(trials: &[Trial]) -> (f64, f64) {
    mean(trials.iter().map(|trial| (trial.local_joules, trial.wasted_joules)))
}

/// Asks every question twice: once the local answer is dropped, once it is shown.
async fn trials() -> Vec<Trial> {
    let upstream = MockUpstream::start().await;
    let questions = questions();
    let known = questions.iter().map(|one| (one.prompt.clone(), one.answers[0].clone()));
    upstream.respond_with(Mode::Know(known.collect()));
    // One slot and no host cache: nothing of the first pass is left for the second.
    let local = smol("slots = 1\nhost_cache_mib = 0");
    let app =
        TestApp::start(&(POLICIES.to_owned() + &local + &cloud_model("cloud", 9.0, &upstream)))
            .await;
    app.until_loaded("smol").await;
    let mut dropped = Vec::new();
    for question in &questions {
        let (answer, record) = asked(&app, "auto/drop", question).await;
        assert!(question.is_answered_by(&answer), "{answer}");
        assert_eq!(record["attempts"][0]["outcome"], "escalated");
        dropped.push(record);
    }
    let mut trials = Vec::new();
    for (question, dropped) in questions.iter().zip(dropped) {
        let (answer, record) = asked(&app, "auto/show", question).await;
        let attempt = &record["attempts"][0];
        assert_eq!(attempt["outcome"], "answered", "{record}");
        let signals: Signals = serde_json::from_value(attempt["signals"].clone()).unwrap();
        let score = f64::from(u8::from(question.is_answered_by(&answer)));
        let p = record["candidates"][0]["p"].as_f64().unwrap();
        trials.push(Trial {
            example: Example { id: question.id.clone(), p, signals, score },
            local_joules: record["energy"]["joules"].as_f64().unwrap(),
            wasted_joules: dropped["attempts"][0]["joules"].as_f64().unwrap(),
            usage: serde_json::from_value(dropped["usage"].clone()).unwrap(),
        });
    }
    trials
}

/// The answer and the settled record of a question.
async fn asked(app: &TestApp, model: &str, question: &Question) -> (String, Value) {
    let mut request = ask(model, &question.prompt);
    request["max_tokens"] = json!(24);
    request["temperature"] = json!(0);
    let reply = app.chat(&request).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    (reply.content().to_owned(), settled(app, &reply.json).await)
}

async fn settled(app: &TestApp, answer: &Value) -> Value {
    app.settled(answer["wattgate"]["request_id"].as_str().unwrap()).await
}

#[derive(Clone, Copy)]
enum By {
    /// Chosen before anything runs.
    Prompt,
    /// The local model always starts; escalated requests pay for that too.
    Tokens,
}

/// Mean quality and mean joules when this share of the questions is answered by the better model:
/// one point for each share of [`POINTS`].
#[derive(Default)]
struct Curve {
    points: Vec<(f64, f64)>,
}

const POINTS: usize = 100;

/// Results where the floor of a policy decides which answers are shown: sums over splits.
#[derive(Default)]
struct Operating {
    splits: f64,
    escalated: f64,
    shown_right: f64,
    quality: f64,
    joules: f64,
}

impl Operating {
    /// Scores below the threshold go to the better model.
    fn of(trials: &[Trial], class: Class, score: impl Fn(&Trial) -> f64, threshold: f64) -> Self {
        let shown: Vec<&Trial> = trials.iter().filter(|one| score(one) >= threshold).collect();
        let outcome = |trial: &Trial| {
            if score(trial) >= threshold {
                (trial.example.score, trial.local_joules)
            } else {
                (1.0, trial.wasted_joules + trial.cloud_joules(class))
            }
        };
        let (quality, joules) = mean(trials.iter().map(outcome));
        let right: f64 = shown.iter().map(|trial| trial.example.score).sum();
        Self {
            splits: 1.0,
            escalated: 1.0 - shown.len() as f64 / trials.len() as f64,
            shown_right: right / shown.len().max(1) as f64,
            quality,
            joules,
        }
    }

    fn add(&mut self, other: &Self) {
        self.splits += other.splits;
        self.escalated += other.escalated;
        self.shown_right += other.shown_right;
        self.quality += other.quality;
        self.joules += other.joules;
    }

    /// Best quality for as many joules without a cascade.
    fn against(&self, floor: f64, prompt: &Curve, chance: &Curve) -> Value {
        let mean = |sum: f64| sum / self.splits;
        let joules = mean(self.joules);
        json!({
            "floor": floor,
            "escalated": mean(self.escalated),
            "right_among_shown": mean(self.shown_right),
            "right": mean(self.quality),
            "joules": joules,
            "right_by_prompt_for_as_many_joules": prompt.quality(joules),
            "right_by_lot_for_as_many_joules": chance.quality(joules),
        })
    }
}

impl Curve {
    /// The lowest scores go to the better model first.
    fn of(trials: &[Trial], class: Class, score: impl Fn(&Trial) -> f64, by: By) -> Self {
        let mut order: Vec<&Trial> = trials.iter().collect();
        order.sort_by(|a, b| score(a).total_cmp(&score(b)));
        let point = |share: usize| {
            let sent = order.len() * share / POINTS;
            let outcome = |(place, trial): (usize, &&Trial)| {
                let wasted = if let By::Tokens = by { trial.wasted_joules } else { 0.0 };
                if place < sent {
                    (1.0, trial.cloud_joules(class) + wasted)
                } else {
                    (trial.example.score, trial.local_joules)
                }
            };
            mean(order.iter().enumerate().map(outcome))
        };
        Self { points: (0..=POINTS).map(point).collect() }
    }

    /// Questions sent to the better model at random.
    fn chance(trials: &[Trial], class: Class) -> Self {
        let local = mean(trials.iter().map(|trial| (trial.example.score, trial.local_joules)));
        let cloud = mean(trials.iter().map(|trial| (1.0, trial.cloud_joules(class))));
        let between = |a: f64, b: f64, share: usize| a + (b - a) * share as f64 / POINTS as f64;
        let point = |share| (between(local.0, cloud.0, share), between(local.1, cloud.1, share));
        Self { points: (0..=POINTS).map(point).collect() }
    }

    fn add(&mut self, other: &Self) {
        self.points.resize(other.points.len(), (0.0, 0.0));
        for (sum, one) in self.points.iter_mut().zip(&other.points) {
            *sum = (sum.0 + one.0, sum.1 + one.1);
        }
    }

    fn scale(&mut self, factor: f64) {
        self.points.iter_mut().for_each(|point| *point = (point.0 * factor, point.1 * factor));
    }

    /// Best quality for at most this energy: a policy need not use its whole budget.
    fn quality(&self, joules: f64) -> Option<f64> {
        let affordable = self.points.iter().filter(|point| point.1 <= joules + 1e-9);
        affordable.map(|point| point.0).max_by(f64::total_cmp)
    }

    /// Share of the range from all local to all elsewhere up to which `other` is at least as good
    /// everywhere.
    fn better_up_to(&self, other: &Self) -> f64 {
        let (least, most) = (self.points[0].1, self.points[POINTS].1);
        let at = |step: usize| least + (most - least) * step as f64 / POINTS as f64;
        let worse = |step: &usize| match (self.quality(at(*step)), other.quality(at(*step))) {
            (Some(own), Some(other)) => other + 1e-9 < own,
            _ => false,
        };
        (0..=POINTS).find(worse).unwrap_or(POINTS) as f64 / POINTS as f64
    }

    /// Mean advantage in quality of `other` at equal joules, between all local and all cloud.
    fn gain_of(&self, other: &Self) -> f64 {
        let (least, most) = (self.points[0].1, self.points[POINTS].1);
        let at = |step: usize| least + (most - least) * step as f64 / POINTS as f64;
        let gain = |step: usize| Some(other.quality(at(step))? - self.quality(at(step))?);
        let gains: Vec<f64> = (0..=POINTS).filter_map(gain).collect();
        gains.iter().sum::<f64>() / gains.len() as f64
    }
}

fn mean(points: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    let points: Vec<(f64, f64)> = points.collect();
    let sum = points.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    (sum.0 / points.len() as f64, sum.1 / points.len() as f64)
}

fn write_csv(path: &Path, cascade: &Curve, prompt: &Curve, chance: &Curve) {
    let mut text = String::from(
        "share_to_better_model,cascade_quality,cascade_joules,prompt_quality,prompt_joules,chance_quality,chance_joules\n",
    );
    for share in 0..=POINTS {
        let [a, b, c] = [cascade, prompt, chance].map(|curve| curve.points[share]);
        writeln!(
            text,
            "{:.2},{:.4},{:.3},{:.4},{:.3},{:.4},{:.3}",
            share as f64 / POINTS as f64,
            a.0,
            a.1,
            b.0,
            b.1,
            c.0,
            c.1
        )
        .unwrap();
    }
    std::fs::write(path, text).unwrap();
}

/// The three curves, as a picture.
fn svg(cascade: &Curve, prompt: &Curve, chance: &Curve) -> String {
    let most = cascade.points.iter().chain(&prompt.points).map(|point| point.1).fold(0.0, f64::max);
    let place = |point: &(f64, f64)| (60.0 + point.1 / most * 560.0, 340.0 - point.0 * 300.0);
    let mut text = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"400\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"680\" height=\"400\" fill=\"white\"/>\n",
    );
    for tenth in (0..=10).step_by(2) {
        let share = f64::from(tenth) / 10.0;
        let ((x, _), (_, y)) = (place(&(0.0, share * most)), place(&(share, 0.0)));
        writeln!(
            text,
            "<line x1=\"60\" x2=\"620\" y1=\"{y:.0}\" y2=\"{y:.0}\" stroke=\"#ddd\"/>\
             <text x=\"52\" y=\"{:.0}\" text-anchor=\"end\">{share:.1}</text>\
             <text x=\"{x:.0}\" y=\"358\" text-anchor=\"middle\">{:.1}</text>",
            y + 4.0,
            share * most,
        )
        .unwrap();
    }
    let legend = [
        ("cascade: by the first tokens (held out)", "#0a7d38", cascade),
        ("by the prompt alone", "#c25100", prompt),
        ("by lot", "#888888", chance),
    ];
    for (row, (name, colour, curve)) in legend.into_iter().enumerate() {
        let points: Vec<String> =
            curve.points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let y = 270 + 20 * row;
        writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <rect x=\"380\" y=\"{}\" width=\"12\" height=\"4\" fill=\"{colour}\"/><text x=\"398\" y=\"{}\">{name}</text>",
            points.join(" "),
            y - 5,
            y,
        )
        .unwrap();
    }
    text + "<text x=\"340\" y=\"385\" text-anchor=\"middle\">joules per question (local estimated + cloud assumed)</text>\n\
            <text x=\"16\" y=\"190\" transform=\"rotate(-90 16 190)\" text-anchor=\"middle\">share answered right</text>\n</svg>\n"
}
