//! The cascade on the real SmolLM2 against routing by the prompt alone: quality for the same joules. Minutes long, so ignored
//! by default: `make cascade-curve` runs it and rewrites `router-models/cascade/`.
//!
//! The better model is a rule-correct stand-in: it always knows the answer, and its joules are ASSUMED, from the table of
//! cloud classes. What SmolLM2 answers, how sure it was and what that took are real.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use wattgate::routing::Signals;
use wattgate::train::cascade::{Example, fit, held_out_scores};

use crate::app::{TestApp, ask, cloud_model};
use crate::local::smol;
use crate::stand_in::{Mode, StandIn};

const QUESTIONS: &str = include_str!("../data/cascade/questions.jsonl");
const OUT: &str = "router-models/cascade";
/// Class in the table of cloud energy that stands for the better model.
const CLASS: &str = "large";
const SEEDS: u64 = 20;

#[derive(Deserialize)]
struct Question {
    id: String,
    domain: String,
    prompt: String,
    answers: Vec<String>,
}

impl Question {
    /// Whether `text` holds one of the answers as a word of its own, whatever its case; for a symbol the case counts.
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

/// What both models did with one question.
struct Trial {
    example: Example,
    local_joules: f64,
    cloud_joules: f64,
}

#[test]
fn answers_are_found_as_words() {
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
    // Held out: each answer is scored by weights that have not seen it, and over many splits.
    let mut cascade = Curve::default();
    let mut gains = Vec::new();
    let prompt = Curve::of(&trials, |trial| trial.example.p, By::Prompt);
    for seed in 0..SEEDS {
        let scores = held_out_scores(&examples, seed).unwrap();
        let by_id: BTreeMap<&str, f64> =
            examples.iter().map(|one| one.id.as_str()).zip(scores).collect();
        let one = Curve::of(&trials, |trial| by_id[trial.example.id.as_str()], By::Tokens);
        gains.push(prompt.gain_of(&one));
        cascade.add(&one);
    }
    cascade.scale(1.0 / SEEDS as f64);
    let chance = Curve::chance(&trials);
    let fitted = fit(&[("smollm2-135m".to_owned(), examples)].into(), 1).unwrap();
    let report = serde_json::to_string_pretty(&fitted.reports).unwrap();
    std::fs::create_dir_all(OUT).unwrap();
    write_csv(&Path::new(OUT).join("curve.csv"), &cascade, &prompt, &chance);
    std::fs::write(Path::new(OUT).join("curve.svg"), svg(&cascade, &prompt, &chance)).unwrap();
    std::fs::write(Path::new(OUT).join("fit.json"), report + "\n").unwrap();
    let weights = wattgate::routing::Confidence::new(fitted.weights);
    let weights = serde_json::to_string_pretty(&weights).unwrap() + "\n";
    std::fs::write(Path::new(OUT).join("cascade.json"), weights).unwrap();
    let (mean, least) = (
        gains.iter().sum::<f64>() / gains.len() as f64,
        gains.iter().copied().fold(f64::INFINITY, f64::min),
    );
    let summary = json!({
        "questions": trials.len(), "smollm2_right": good,
        "mean_quality_gain_at_equal_joules": mean, "least_over_splits": least,
        "auc_first_tokens": fitted.reports[0].auc, "auc_prompt": fitted.reports[0].auc_of_prompt,
        "better_model": "rule-correct stand-in", "better_model_joules": format!("assumed, class {CLASS}"),
    });
    let summary = serde_json::to_string_pretty(&summary).unwrap() + "\n";
    std::fs::write(Path::new(OUT).join("summary.json"), &summary).unwrap();
    assert!(mean > 0.0 && least > 0.0, "{summary}");
}

/// Asks both models every question.
async fn trials() -> Vec<Trial> {
    let stand_in = StandIn::start().await;
    let questions = questions();
    let known = questions.iter().map(|one| (one.prompt.clone(), one.answers[0].clone()));
    stand_in.respond_with(Mode::Know(known.collect()));
    let cloud = cloud_model("cloud", 4.0, &stand_in).replace("\"small\"", &format!("{CLASS:?}"));
    let app = TestApp::start(&(smol("slots = 1") + &cloud)).await;
    app.until_loaded("smol").await;
    let mut trials = Vec::new();
    for question in &questions {
        let mut request = ask("smol", &question.prompt);
        request["max_tokens"] = json!(24);
        request["temperature"] = json!(0);
        let local = app.chat(&request).await;
        assert_eq!(local.status, 200, "{}", local.text);
        let score = f64::from(u8::from(question.is_answered_by(local.content())));
        let record = settled(&app, &local.json).await;
        request["model"] = json!("cloud");
        let cloud = app.chat(&request).await;
        assert!(question.is_answered_by(cloud.content()), "{}", cloud.text);
        let cloud = settled(&app, &cloud.json).await;
        let signals: Signals =
            serde_json::from_value(record["attempts"][0]["signals"].clone()).unwrap();
        let p = record["candidates"][0]["p"].as_f64().unwrap();
        trials.push(Trial {
            example: Example { id: question.id.clone(), p, signals, score },
            local_joules: record["energy"]["joules"].as_f64().unwrap(),
            cloud_joules: cloud["energy"]["joules"].as_f64().unwrap(),
        });
    }
    trials
}

async fn settled(app: &TestApp, answer: &Value) -> Value {
    app.settled(answer["wattgate"]["request_id"].as_str().unwrap()).await
}

#[derive(Clone, Copy)]
enum By {
    /// Chosen before anything runs.
    Prompt,
    /// The local model has always run; what is escalated pays twice.
    Tokens,
}

/// Mean quality and mean joules when this share of the questions is answered by the better model: one point for each share
/// of [`POINTS`].
#[derive(Default)]
struct Curve {
    points: Vec<(f64, f64)>,
}

const POINTS: usize = 100;

impl Curve {
    /// The lowest scores go to the better model first.
    fn of(trials: &[Trial], score: impl Fn(&Trial) -> f64, by: By) -> Self {
        let mut order: Vec<&Trial> = trials.iter().collect();
        order.sort_by(|a, b| score(a).total_cmp(&score(b)));
        let point = |share: usize| {
            let sent = order.len() * share / POINTS;
            let outcome = |(place, trial): (usize, &&Trial)| {
                let wasted = if let By::Tokens = by { trial.local_joules } else { 0.0 };
                if place < sent {
                    (1.0, trial.cloud_joules + wasted)
                } else {
                    (trial.example.score, trial.local_joules)
                }
            };
            mean(order.iter().enumerate().map(outcome))
        };
        Self { points: (0..=POINTS).map(point).collect() }
    }

    /// Sent to the better model by lot.
    fn chance(trials: &[Trial]) -> Self {
        let local = mean(trials.iter().map(|trial| (trial.example.score, trial.local_joules)));
        let cloud = mean(trials.iter().map(|trial| (1.0, trial.cloud_joules)));
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

    /// Best quality for at most this much: a policy need not use all that it may.
    fn quality(&self, joules: f64) -> Option<f64> {
        let affordable = self.points.iter().filter(|point| point.1 <= joules + 1e-9);
        affordable.map(|point| point.0).max_by(f64::total_cmp)
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
