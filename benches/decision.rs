//! What a routing decision costs: all that the gateway does between a parsed request and a ranked list of models.
//!
//! A 1 KB prompt, the built-in router, three models elsewhere and a local one that is not loaded. Prints median, 99th
//! percentile and allocations; fails if they are beyond what is promised. Run by `make bench-decision`, never with the
//! tests: a busy machine would fail it. No criterion: it tells means and medians, and a 99th percentile is promised; and it
//! would be built in every test run.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wattgate::app::App;
use wattgate::config::Config;
use wattgate::openai::Request;
use wattgate::serving::options::RequestOptions;

const WARM_UP: usize = 500;
const DECISIONS: usize = 20_000;
const MEDIAN_MAX: Duration = Duration::from_micros(150);
const P99_MAX: Duration = Duration::from_millis(1);
/// What one decision may allocate: its candidates, its reason, the text and its vector, each a few times.
const ALLOCATIONS_MAX: usize = 100;

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

// SAFETY: hands every call on to the system's allocator as it came; the caller's promises are those that it asks for.
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
        anyhow::ensure!(plan.decision.judged.len() == 4, "four candidates are weighed");
    }
    taken.sort_unstable();
    let (median, p99) = (taken[DECISIONS / 2], taken[DECISIONS / 100 * 99]);
    let (allocations, bytes) = (allocated.0 / DECISIONS, allocated.1 / DECISIONS);
    println!(
        "{DECISIONS} decisions on a 1 KB prompt among 4 models: median {median:.1?}, p99 {p99:.1?}, \
         {allocations} allocations of {bytes} bytes together"
    );
    anyhow::ensure!(median <= MEDIAN_MAX && p99 <= P99_MAX, "slower than promised");
    anyhow::ensure!(allocations <= ALLOCATIONS_MAX, "more allocations than promised");
    Ok(())
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
