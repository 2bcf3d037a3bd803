//! Cost of a routing decision, from a parsed request to a ranked list of models, and of handing its
//! record to the log.
//!
//! A 1 KiB prompt, the built-in router, three cloud models and a local one that is not loaded.
//! Prints median, 99th percentile and allocations; fails above the promised limits. Run by
//! `make bench-decision`, never with the tests: a busy machine would fail it. Not criterion, which
//! reports means and medians but no 99th percentile.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wattgate::app::App;
use wattgate::config::Config;
use wattgate::openai::Request;
use wattgate::routing::TaskClass;
use wattgate::routing::task::Form;
use wattgate::routing::text::TextVector;
use wattgate::serving::options::RequestOptions;
use wattgate::serving::plan::Plan;
use wattgate::traffic::record::RECORD_VERSION;
use wattgate::traffic::{Entry, Outcome, Receipt, Record, RecordSink, Timings};

const WARM_UP: usize = 500;
const DECISIONS: usize = 20_000;
const MEDIAN_MAX: Duration = Duration::from_micros(150);
const P99_MAX: Duration = Duration::from_millis(1);
/// Most allocations of one decision: its candidates, its reason, the text and its vector.
const ALLOCATIONS_MAX: usize = 100;

/// Rounds of the log measurement, and records in each, fewer than its queue holds.
const LOG_ROUNDS: u64 = 50;
const LOG_RECORDS: u64 = 500;

const PROSE: &str = "When the committee met on Thursday to discuss the renovation of the old library, most of the \
members had already formed an opinion about the proposal. The architect, who had travelled from \
Vienna the night before, presented three drawings that showed how the reading room might be \
opened towards the garden without losing the painted ceiling. Some people worried about the \
noise from the tram line; others asked whether the heating could be replaced at the same time, \
because the pipes beneath the floor have not been inspected for decades. A retired teacher \
reminded everyone that the children of the neighbourhood use the building every afternoon, and \
that closing it for a whole winter would be a hardship for families with small apartments. After \
a long debate the chair suggested to postpone the vote and to ask two engineers for a written \
estimate. Could you describe the mood of that meeting in a few sentences, and explain which of \
the arguments you would consider the strongest if you were a member of this committee yourself \
today? Thank you very much.";

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
[models.smollm2-135m]
ability = -2.5
llama = { source = "file:/nowhere/a.gguf", load = "on_demand" }
[models."llama-3.1-8b-instruct"]
openai = { base_url = "http://127.0.0.1:9/v1", energy_class = "nano" }
[models."mixtral-8x7b-instruct-v0.1"]
openai = { base_url = "http://127.0.0.1:9/v1", energy_class = "small" }
[models."gpt-4-1106-preview"]
openai = { base_url = "http://127.0.0.1:9/v1", energy_class = "large" }
"#;

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: hands every call on to the system's allocator as it came; the caller's promises are those
// that it asks for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes.saturating_sub(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut config = wattgate::config::parse(CONFIG, "bench.toml")?;
    config.traffic.dir = dir.path().join("traffic");
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(config))
}

async fn measure(config: Config) -> anyhow::Result<()> {
    // reqwest is built without a TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let app = App::build(config, PathBuf::from("/nowhere/engine")).await?;
    let (router, request, options) = (&app.gateway().router, request()?, RequestOptions::default());
    let mut taken = Vec::with_capacity(DECISIONS);
    let mut allocated = (0, 0);
    for round in 0..WARM_UP + DECISIONS {
        let (before, start) = ((ALLOCATIONS.get(), BYTES.get()), Instant::now());
        let plan = black_box(router.plan(black_box(&request), &options)?);
        if round >= WARM_UP {
            taken.push(start.elapsed());
            allocated.0 += ALLOCATIONS.get() - before.0;
            allocated.1 += BYTES.get() - before.1;
        }
        anyhow::ensure!(plan.decision.evaluated.len() == 4, "four candidates are weighed");
    }
    taken.sort_unstable();
    let (median, p99) = (taken[DECISIONS / 2], taken[DECISIONS / 100 * 99]);
    let (allocations, bytes) = (allocated.0 / DECISIONS, allocated.1 / DECISIONS);
    println!(
        "{DECISIONS} decisions on a 1 KB prompt among 4 models: median {median:.1?}, p99 {p99:.1?}, \
         {allocations} allocations of {bytes} bytes in total"
    );
    measure_text();
    measure_log(&app.gateway().receipts.sink, &router.plan(&request, &options)?);
    anyhow::ensure!(median <= MEDIAN_MAX && p99 <= P99_MAX, "slower than promised");
    anyhow::ensure!(allocations <= ALLOCATIONS_MAX, "more allocations than promised");
    Ok(())
}

/// The two parts of a decision that read the text, per KiB. Prose without repetition, since a
/// repeated text trains the branch predictor.
fn measure_text() {
    let vector = median_of(|| TextVector::of_text(black_box(PROSE)));
    let class = median_of(|| TaskClass::of(black_box(PROSE), Form::default()));
    let kib = PROSE.len() as f64 / 1024.0;
    let per_kib = |median: Duration| median.as_secs_f64() * 1e6 / kib;
    println!("text: vector {:.1} µs, task class {:.1} µs per KiB", per_kib(vector), per_kib(class));
}

fn median_of<T>(mut work: impl FnMut() -> T) -> Duration {
    let mut taken: Vec<Duration> = (0..2_000)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed()
        })
        .collect();
    taken.sort_unstable();
    taken[taken.len() / 2]
}

/// What a finished request costs the serving thread, and what it costs in all, in CPU time: the
/// writer pauses between its writes.
fn measure_log(sink: &RecordSink, plan: &Plan) {
    let record = Arc::new(record(plan));
    let (mut handed_over, spent) = (Duration::ZERO, cpu());
    for _ in 0..LOG_ROUNDS {
        let (before, start) = (sink.written(), Instant::now());
        for _ in 0..LOG_RECORDS {
            sink.write(Entry::Record(Arc::clone(&record)));
        }
        handed_over += start.elapsed();
        while sink.written() < before + LOG_RECORDS {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let each = |all: Duration| all.as_secs_f64() * 1e6 / (LOG_ROUNDS * LOG_RECORDS) as f64;
    println!(
        "log: a record is handed over in {:.2} µs; until it is on disk it takes {:.1} µs of CPU",
        each(handed_over),
        each(cpu().saturating_sub(spent))
    );
}

/// CPU time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn record(plan: &Plan) -> Record {
    let receipt = Receipt {
        request_id: "0198f2f0-0000-7000-8000-000000000000".into(),
        policy: Arc::clone(&plan.policy.name),
        route: plan.decision.chosen().map(|chosen| chosen.route),
        model: plan.decision.chosen().map(|chosen| Arc::clone(&chosen.model)),
        reason: Arc::clone(&plan.reason),
        candidates: Arc::clone(&plan.decision.evaluated),
        attempts: vec![],
        energy: None,
        carbon: None,
        electricity_dollars: None,
    };
    Record {
        version: RECORD_VERSION,
        unix_ms: 1_764_374_400_000,
        receipt,
        outcome: Outcome::Answered,
        status: 200,
        features: plan.features,
        rule: plan.rule.clone(),
        overrides: plan.overrides.clone(),
        propensity: plan.decision.propensity,
        session: plan.session,
        timings: Timings { decision_ms: 0.02, first_token_ms: Some(1.5), total_ms: 9.75 },
        usage: None,
        dollars: None,
        shadow: None,
        label: None,
        prompt: None,
    }
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
