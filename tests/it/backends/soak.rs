//! Many short requests whose clients come and go: no slot, memory or record is lost.
//!
//! The gateway is a separate process, so that its memory can be measured.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use wattgate::traffic::Record;

use crate::rig::app::{Reply, Sse, ask_streaming, client, eventually, records};
use crate::rig::local_models::smol;
use crate::rig::serving::Serving;

/// Concurrent clients: more than slots, so that some leave the queue.
const CLIENTS: usize = 12;

/// Allowed difference of resident memory between the middle and the end, MiB: allocators keep some
/// freed memory.
const FLAT_MIB: u64 = 16;

/// A fixed pseudo-random sequence: splitmix64 of the index.
fn dice(index: u64) -> u64 {
    let mut mixed = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

struct Soak {
    serving: Serving,
    client: reqwest::Client,
    /// Requests whose answers had begun, and whether the client stayed to the end.
    seen: Mutex<HashMap<String, bool>>,
}

impl Soak {
    async fn start() -> Self {
        // No host cache: it grows to its budget by design.
        let serving = Serving::start(&smol("slots = 4\nhost_cache_mib = 0"));
        let soak = Self { serving, client: client(), seen: Mutex::default() };
        eventually(|| async { (soak.card().await["ready"] == true).then_some(()) }).await;
        soak
    }

    async fn get(&self, path: &str) -> Reply {
        let url = format!("{}{path}", self.serving.url);
        Reply::of(self.client.get(url).send().await.unwrap()).await
    }

    async fn card(&self) -> Value {
        self.get("/v1/models/smol").await.json
    }

    fn request(&self, index: u64) -> reqwest::RequestBuilder {
        let roll = dice(index);
        let mut request = ask_streaming("smol", &format!("Say the number {}.", roll % 50));
        request["max_tokens"] = json!(1 + roll % 6);
        self.client.post(format!("{}/v1/chat/completions", self.serving.url)).json(&request)
    }

    /// One client: asks, reads none, some or all of the answer, and leaves.
    async fn visit(&self, index: u64) {
        let roll = dice(index);
        let asking = self.request(index).send();
        if roll.is_multiple_of(5) {
            // Leaves within the time that queueing and prefill take.
            let patience = Duration::from_millis((roll >> 8) % 60);
            let _left = tokio::time::timeout(patience, asking).await;
            return;
        }
        let mut response = asking.await.unwrap();
        assert_eq!(response.status(), 200);
        let id = response.headers()["x-wattgate-request-id"].to_str().unwrap().to_owned();
        let pieces = if roll.is_multiple_of(3) { roll % 4 } else { u64::MAX };
        let mut stays = true;
        for piece in 0.. {
            stays = piece < pieces;
            if !stays || response.chunk().await.unwrap().is_none() {
                break;
            }
        }
        assert!(self.seen.lock().unwrap().insert(id, stays).is_none(), "two requests of one id");
    }

    async fn visits(&self, range: std::ops::Range<u64>) {
        stream::iter(range).for_each_concurrent(CLIENTS, |index| self.visit(index)).await;
    }

    /// Resident memory of the gateway and of its engine, MiB.
    fn memory_mib(&self) -> [u64; 2] {
        let gateway = self.serving.pid();
        // /proc lists a child under the thread that started it.
        let threads = fs::read_dir(format!("/proc/{gateway}/task")).unwrap();
        let children = threads.map(|thread| thread.unwrap().path().join("children"));
        let engines: String = children.map(|file| fs::read_to_string(file).unwrap()).collect();
        let engine = engines.split_whitespace().next().expect("the engine runs").to_owned();
        [gateway.to_string(), engine].map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
        })
    }

    /// Waits until nothing is in flight and every request that was counted is in the log.
    async fn settle(&self) -> Vec<Record> {
        eventually(|| async { (self.card().await["in_flight"] == 0).then_some(()) }).await;
        let log = self.serving.dir.path().join("data/traffic");
        eventually(|| async {
            let counted: f64 = values(&self.get("/metrics").await.text, "requests_total").sum();
            let records = records(&log);
            ((records.len() as f64 - counted).abs() < 0.5).then_some(records)
        })
        .await
    }
}

/// Every value of a metric, whatever its labels.
fn values<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = f64> + use<'a> {
    let lines = metrics.lines().filter_map(move |line| line.strip_prefix("wattgate_"));
    let own = lines.filter_map(move |line| line.strip_prefix(name));
    let own = own.filter(|rest| rest.starts_with([' ', '{']));
    own.map(|rest| rest.rsplit_once(' ').unwrap().1.parse().unwrap())
}

/// 300 requests; `make soak` sends 10,000.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a model: `make test` pulls it"]
async fn clients_that_come_and_go_leak_no_slot_memory_or_record() {
    let count = std::env::var("WATTGATE_SOAK").map_or(300, |text| text.parse::<u64>().unwrap());
    let soak = Soak::start().await;
    let started = std::time::Instant::now();
    let mut memory = Vec::new();
    for tenth in 0..10 {
        soak.visits(count * tenth / 10..count * (tenth + 1) / 10).await;
        memory.push(soak.memory_mib());
        println!("{} of {count}: {:?} MiB", count * (tenth + 1) / 10, memory.last().unwrap());
    }
    let records = soak.settle().await;
    let elapsed = started.elapsed();

    // The receipt store is bounded; by the middle of a long run it is full.
    let ([gateway, engine], [gateway_end, engine_end]) = (memory[4], memory[9]);
    assert!(gateway_end <= gateway + FLAT_MIB, "the gateway grew: {memory:?}");
    assert!(engine_end <= engine + FLAT_MIB, "the engine grew: {memory:?}");

    let in_log: HashSet<&str> = records.iter().map(|one| &*one.receipt.request_id).collect();
    assert_eq!(in_log.len(), records.len(), "a request was entered twice");
    let seen = soak.seen.lock().unwrap().clone();
    assert!(seen.keys().all(|id| in_log.contains(&**id)), "a request was not entered");
    let mut outcomes: HashMap<&str, usize> = HashMap::new();
    for record in &records {
        *outcomes.entry(record.outcome.label()).or_default() += 1;
        let stayed = seen.get(&*record.receipt.request_id) == Some(&true);
        assert!(!stayed || record.outcome.label() == "answered", "{record:?}");
        let energy = record.receipt.energy.expect("something was tried");
        assert!(energy.joules.is_some() && energy.is_final, "{record:?}");
    }
    assert!(outcomes["cancelled"] * 20 > records.len(), "too few clients left: {outcomes:?}");
    println!("{} requests in {elapsed:?}: {outcomes:?}", records.len());

    let metrics = soak.get("/metrics").await.text;
    for name in ["energy_conservation_error_joules", "engine_restarts_total"] {
        assert!(values(&metrics, name).all(|value| value == 0.0), "{name}");
    }
    let joules: f64 = records.iter().map(|one| one.receipt.energy.unwrap().joules.unwrap().0).sum();
    let counted: f64 = values(&metrics, "request_energy_joules_total").sum();
    assert!((joules - counted).abs() < 1e-6 * joules, "{joules} J logged, {counted} J counted");

    // Every slot works, and all four at once.
    let asking = (count..count + 4).map(|index| soak.request(index).send());
    let responses = join_all(asking).await.into_iter().map(Result::unwrap);
    assert!(join_all(responses.map(Sse::of)).await.iter().all(|answer| answer.done));
    assert_eq!(soak.serving.terminate(), Some(0));
}
