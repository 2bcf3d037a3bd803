//! Steps of the wall clock, forth and back: nothing but timestamps may go by it.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use wattgate::traffic::Record;

use crate::rig::app::{ask, client, cloud_model, eventually, records};
use crate::rig::fake_engine::FakeModel;
use crate::rig::local_models::local_model;
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::serving::{Serving, serve};
use crate::rig::stepped_clock::SteppedClock;

const DAY: i64 = 86_400;

/// A gateway whose clock the test sets.
struct Stepped {
    serving: Serving,
    clock: SteppedClock,
    http: reqwest::Client,
}

impl Stepped {
    fn start(config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let clock = SteppedClock::new(&dir);
        let mut command = serve(dir.path(), "127.0.0.1:0");
        clock.rule(&mut command);
        Self { serving: Serving::start_by(command, dir), clock, http: client() }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let reply = self.http.post(format!("{}{path}", self.serving.url)).json(body);
        let reply = reply.send().await.unwrap();
        (reply.status().as_u16(), reply.json().await.unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let reply = self.http.get(format!("{}{path}", self.serving.url)).send().await.unwrap();
        (reply.status().as_u16(), reply.json().await.unwrap_or_default())
    }

    /// Values of a metric with labels.
    async fn metrics(&self, name: &str) -> Vec<f64> {
        let reply = self.http.get(format!("{}/metrics", self.serving.url)).send().await.unwrap();
        let text = reply.text().await.unwrap();
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    }

    fn records(&self) -> Vec<Record> {
        records(&self.serving.dir.path().join("data/traffic"))
    }
}

fn id(receipt: &Value) -> &str {
    receipt["request_id"].as_str().unwrap()
}

#[tokio::test]
async fn records_verdicts_conversations_and_books_survive_a_step_of_the_clock() {
    let upstream = MockUpstream::start().await;
    let gateway = Stepped::start(&cloud_model("cloud", 3.0, &upstream));
    let first = ask("cloud", "Tell me a story about a lighthouse and its keeper, please.");
    let mut turn = first.clone();
    let mut asked = Vec::new();
    // Further than any time to live, over the end of a month, and back.
    for (count, days) in [0, 40, -40, 0].into_iter().enumerate() {
        gateway.clock.step_to(days * DAY);
        let reply = gateway.http.post(format!("{}/v1/chat/completions", gateway.serving.url));
        let reply = reply.json(&turn).send().await.unwrap();
        let session = reply.headers()["x-wattgate-session"].to_str().unwrap().to_owned();
        let receipt = reply.json::<Value>().await.unwrap()["wattgate"].clone();
        // A verdict finds every request so far, in memory.
        let verdict = json!({"request_id": id(&receipt), "score": 1.0});
        assert_eq!(gateway.post("/v1/feedback", &verdict).await.0, 200);
        asked.push((days, session, id(&receipt).to_owned()));
        let turns = turn["messages"].as_array_mut().unwrap();
        turns.push(json!({"role": "assistant", "content": "As you wish."}));
        turns.push(json!({"role": "user", "content": format!("And then, in part {count}?")}));
    }
    let written = eventually(|| async {
        let records = gateway.records();
        (records.len() == asked.len()).then_some(records)
    })
    .await;
    for (days, session, id) in &asked {
        assert_eq!(session, &asked[0].1, "the conversation is not old after {days} days");
        assert_eq!(gateway.get(&format!("/v1/requests/{id}")).await.0, 200, "after {days} days");
        let record = written.iter().find(|record| *record.receipt.request_id == **id).unwrap();
        let first =
            written.iter().find(|record| *record.receipt.request_id == *asked[0].2).unwrap();
        let ahead_ms = record.unix_ms.cast_signed() - first.unix_ms.cast_signed();
        let off_ms = ahead_ms - days * DAY * 1000;
        assert!((0..120_000).contains(&off_ms), "{off_ms} ms off after {days} days");
        assert!(record.timings.total_ms < 60_000.0, "{:?}", record.timings);
    }
    let errors = gateway.metrics("wattgate_energy_conservation_error_joules").await;
    assert!(!errors.is_empty() && errors.iter().all(|error| *error == 0.0), "{errors:?}");
    // Another process knows them by their ids only, each in the file of its day.
    let Stepped { serving, .. } = gateway;
    let dir = serving.kill();
    let again = Serving::start_in(dir);
    for (days, _, id) in &asked {
        let verdict = json!({"request_id": id, "score": 0.0});
        let url = format!("{}/v1/feedback", again.url);
        let reply = client().post(url).json(&verdict).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{days} days");
    }
}

#[tokio::test]
async fn deadlines_and_keep_alives_do_not_go_by_the_wall_clock() {
    let fake = FakeModel::new("stepped-clock", "load_ms = 5\nstep_ms = 20");
    let config = "[engines]\nunload_after_min_s = 6\nunload_after_max_s = 6\n".to_owned()
        + &local_model("slow", fake.path(), "load = \"on_demand\"");
    let gateway = Stepped::start(&config);
    let mut long = ask("slow", "Count for long.");
    long["max_tokens"] = json!(60);
    let url = format!("{}/v1/chat/completions", gateway.serving.url);
    let request = gateway.http.post(url).header("x-wattgate-deadline-ms", "50000").json(&long);
    let steps = async {
        for days in [40, -40, 40, 0] {
            tokio::time::sleep(Duration::from_millis(200)).await;
            gateway.clock.step_to(days * DAY);
        }
    };
    let (reply, ()) = tokio::join!(request.send(), steps);
    let reply = reply.unwrap();
    assert_eq!(reply.status(), 200, "{:?}", reply.text().await);
    let state = async || gateway.get("/v1/models/slow").await.1["state"].clone();
    gateway.clock.step_to(40 * DAY);
    assert_eq!(state().await, "loaded", "six seconds have not passed");
    gateway.clock.step_to(-40 * DAY);
    eventually(|| async { (state().await == "unloaded").then_some(()) }).await;
    assert_eq!(gateway.serving.terminate(), Some(0));
}
