//! What the router costs a request: reading its text and predicting four candidates. One core, built-in router.
//!
//! `decide()` then compares a few numbers: `wattgate route` over a file of prompts times all of it with reading and writing.
//!
//! Prints median and 99th percentile; fails if they are beyond what the gateway promises (150 µs, 1 ms). Run by
//! `make bench-decision`, never with the tests: a busy machine would fail it.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use wattgate::openai::Request;
use wattgate::routing::text::TextVector;
use wattgate::routing::{AdequacyModel, Features};

const WARM_UP: usize = 500;
const DECISIONS: usize = 20_000;
const MEDIAN_MAX: Duration = Duration::from_micros(150);
const P99_MAX: Duration = Duration::from_millis(1);
const MODELS: [&str; 4] =
    ["llama-3.1-8b-instruct", "mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview", "gpt-4o"];

fn main() -> anyhow::Result<()> {
    let router = AdequacyModel::built_in()?;
    let request = request()?;
    let mut taken = Vec::with_capacity(DECISIONS);
    for round in 0..WARM_UP + DECISIONS {
        let start = Instant::now();
        black_box(predictions(black_box(&request), &router));
        if round >= WARM_UP {
            taken.push(start.elapsed());
        }
    }
    taken.sort_unstable();
    let (median, p99) = (taken[DECISIONS / 2], taken[DECISIONS / 100 * 99]);
    println!("{DECISIONS} decisions on a 1 KB prompt: median {median:.1?}, p99 {p99:.1?}");
    anyhow::ensure!(median <= MEDIAN_MAX && p99 <= P99_MAX, "slower than promised");
    Ok(())
}

fn predictions(request: &Request, router: &AdequacyModel) -> (Features, [Option<f64>; 4]) {
    let (text, features) = (TextVector::of_messages(&request.messages()), Features::of(request));
    (features, MODELS.map(|name| router.predict_known(&text, name)))
}

/// A question with answer options, 1,024 bytes of it.
fn request() -> anyhow::Result<Request> {
    let mut text = String::from(
        "A farmer keeps hens, geese and 14 goats near Lyon, and asks which of these costs less. ",
    );
    while text.len() < 900 {
        text.push_str(
            "The price of grain rose by 3.5% in spring while the harvest of 2019 was poor; ",
        );
    }
    text.push_str("\nA. grain\nB. straw\nC. hay from the valley\nD. none of these\nAnswer:");
    text.extend(std::iter::repeat_n('.', 1024_usize.saturating_sub(text.len())));
    let body =
        serde_json::json!({"model": "auto", "messages": [{"role": "user", "content": text}]});
    Ok(Request::Chat(serde_json::from_str(&body.to_string())?))
}
