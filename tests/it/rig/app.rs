//! A complete gateway on port 0, started from the text of a config, and a small client for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use wattgate::app::App;
use wattgate::config::Config;
use wattgate::energy::{MeterSnapshot, SensorChoice};
use wattgate::serving::Gateway;
use wattgate::traffic::{Line, Record, read_log};
use wattgate::units::Watts;

use crate::rig::mock_upstream::MockUpstream;
use crate::rig::rapl::Package;

/// Timeout of a wait for an event that happens soon; only a failing test reaches it.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub struct TestApp {
    pub address: SocketAddr,
    pub operator_address: Option<SocketAddr>,
    pub gateway: Arc<Gateway>,
    /// Of the threads that serve.
    pub serving_runtimes: Vec<Handle>,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    running: JoinSet<()>,
    dir: TempDir,
    /// The mock power meter of a gateway with fake engines.
    machine: Option<(Package, TempDir)>,
}

impl TestApp {
    /// Starts a gateway from `config`, which leaves out `[server]`, `[traffic] dir` and
    /// `model_dir`.
    pub async fn start(config: &str) -> Self {
        Self::start_with(config, |_| {}).await
    }

    pub async fn start_with(text: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(text, None, change).await
    }

    /// As [`Self::start`], for fake models, on a machine that draws 40 W.
    pub async fn start_fake(text: &str) -> Self {
        let sysfs = TempDir::new().unwrap();
        let package = Package::start(sysfs.path(), 40);
        let root = sysfs.path().to_owned();
        Self::start_at(text, Some((package, sysfs)), |config| {
            config.energy.sensors = SensorChoice::Rapl;
            config.energy.sysfs_root = root;
            // A constant power would be learned as idle power, and no request would add to it.
            config.energy.idle_watts.get_or_insert(Watts(0.0));
        })
        .await
    }

    async fn start_at(
        text: &str,
        machine: Option<(Package, TempDir)>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let mut config = wattgate::config::parse(text, "test.toml")
            .unwrap_or_else(|problems| panic!("{problems}"));
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.traffic.dir = dir.path().join("traffic");
        change(&mut config);
        let engine = PathBuf::from(env!("CARGO_BIN_EXE_wattgate"));
        let app = App::build(config, engine).await.unwrap();
        let (address, operator_address) = (app.address(), app.operator_address());
        let gateway = Arc::clone(app.gateway());
        let serving_runtimes = app.serving_runtimes();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut running = JoinSet::new();
        running.spawn(async move {
            let stop = async move { drop(stopped.await) };
            app.run_until(stop).await.unwrap();
        });
        let client = client();
        Self {
            address,
            operator_address,
            gateway,
            serving_runtimes,
            client,
            stop: Some(stop),
            running,
            dir,
            machine,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> Reply {
        Reply::of(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::of(self.send(path, body).await).await
    }

    /// Sends a body and returns the response before its body.
    pub async fn send(&self, path: &str, body: &Value) -> reqwest::Response {
        self.request(path).json(body).send().await.unwrap()
    }

    pub fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path)).bearer_auth("sk-the-clients-own-key")
    }

    pub async fn chat(&self, body: &Value) -> Reply {
        self.post("/v1/chat/completions", body).await
    }

    /// Streams an answer to its end.
    pub async fn stream(&self, body: &Value) -> Sse {
        let response = self.send("/v1/chat/completions", body).await;
        assert_eq!(response.status(), 200, "{:?}", response.text().await);
        Sse::of(response).await
    }

    /// The record of a request once its energy is final.
    pub async fn settled(&self, id: &str) -> Value {
        let path = format!("/v1/requests/{id}");
        eventually(|| async {
            let record = self.get(&path).await.json;
            (record["energy"]["final"] == true || record["energy"].is_null()).then_some(record)
        })
        .await
    }

    /// Waits until a local model can answer.
    pub async fn until_loaded(&self, model: &str) {
        let path = format!("/v1/models/{model}");
        eventually(|| async { (self.get(&path).await.json["ready"] == true).then_some(()) }).await;
    }

    /// The mock power meter of a gateway with fake engines.
    pub fn package(&self) -> &Package {
        &self.machine.as_ref().expect("started with fake engines").0
    }

    /// The energy ledgers of all devices.
    pub fn energy(&self) -> MeterSnapshot {
        self.gateway.router.meter.snapshot()
    }

    /// Conversations in the session store.
    pub fn remembered_conversations(&self) -> usize {
        self.gateway.router.conversations.remembered()
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.path().join("traffic")
    }

    /// Every record in the log so far.
    pub fn records(&self) -> Vec<Record> {
        records(&self.log_dir())
    }

    /// Waits until the log holds `count` records.
    pub async fn until_logged(&self, count: usize) -> Vec<Record> {
        eventually(|| async {
            let records = self.records();
            (records.len() >= count).then_some(records)
        })
        .await
    }

    /// Sends a request and disconnects once `begun` is ready, which is before its answer.
    pub async fn leave(&self, path: &str, body: &Value, begun: impl Future<Output = ()>) {
        tokio::select! {
            response = self.send(path, body) => panic!("answered with {}", response.status()),
            () = begun => {}
        }
    }

    /// Waits until the model works on exactly `count` requests, those that wait included.
    pub async fn until_in_flight(&self, model: &str, count: usize) {
        let path = format!("/v1/models/{model}");
        eventually(|| async { (self.get(&path).await.json["in_flight"] == count).then_some(()) })
            .await;
    }

    /// Stops the gateway as SIGTERM would and waits for the end.
    pub async fn stop(mut self) -> Vec<Record> {
        drop(self.gateway);
        drop(self.stop.take());
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
        records(&self.dir.path().join("traffic"))
    }
}

pub fn records(dir: &Path) -> Vec<Record> {
    let lines = read_log(dir).into_iter().flatten();
    lines
        .filter_map(|line| match line.unwrap() {
            Line::Record(record) => Some(*record),
            Line::Annotation(_) | Line::Torn => None,
            Line::Bad { line, reason, .. } => panic!("line {line}: {reason}"),
        })
        .collect()
}

/// Retries until `attempt` returns `Some`; panics after [`PATIENCE`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(mut attempt: impl FnMut() -> F) -> T {
    let tries = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.expect("it happens in time")
}

/// A plain HTTP client.
pub fn client() -> reqwest::Client {
    // reqwest is built without a TLS provider; an error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A response with its body read.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    /// Null if the body is not JSON.
    pub json: Value,
}

impl Reply {
    pub async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, text, json }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The text of the answer.
    pub fn content(&self) -> &str {
        self.json["choices"][0]["message"]["content"].as_str().unwrap_or_default()
    }

    pub fn receipt(&self) -> &Value {
        &self.json["wattgate"]
    }

    /// Status, `error.type` and `error.code`.
    pub fn error(&self) -> (u16, &str, &str) {
        let error = &self.json["error"];
        (self.status, error["type"].as_str().unwrap_or(""), error["code"].as_str().unwrap_or(""))
    }
}

/// A stream read to its end.
#[derive(Debug, Default)]
pub struct Sse {
    /// Every `data:` line but `[DONE]`.
    pub chunks: Vec<Value>,
    pub comments: Vec<String>,
    pub done: bool,
}

impl Sse {
    pub async fn of(response: reqwest::Response) -> Self {
        let mut sse = Self::default();
        let mut bytes = response.bytes_stream();
        let mut text = Vec::new();
        while let Some(Ok(piece)) = bytes.next().await {
            text.extend_from_slice(&piece);
        }
        for line in String::from_utf8(text).unwrap().lines() {
            match line.split_once(": ").or(line.split_once(':')) {
                Some(("data", "[DONE]")) => sse.done = true,
                Some(("data", data)) => sse.chunks.push(serde_json::from_str(data).unwrap()),
                Some(("", comment)) => sse.comments.push(comment.to_owned()),
                _ => assert_eq!(line, "", "an SSE line has a field"),
            }
        }
        sse
    }

    pub fn content(&self) -> String {
        let pieces = self.chunks.iter();
        pieces.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
    }

    pub fn receipt(&self) -> &Value {
        &self.chunks.last().expect("a stream has chunks")["wattgate"]
    }
}

/// A chat request with one user message.
pub fn ask(model: &str, prompt: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}]})
}

pub fn ask_streaming(model: &str, prompt: &str) -> Value {
    let mut request = ask(model, prompt);
    request["stream"] = json!(true);
    request
}

/// Config of a cloud model at a mock upstream, without a key.
pub fn cloud_model(name: &str, ability: f64, upstream: &MockUpstream) -> String {
    cloud_model_at(name, ability, &upstream.base_url())
}

/// As [`cloud_model`], at any upstream.
pub fn cloud_model_at(name: &str, ability: f64, base_url: &str) -> String {
    format!(
        r#"
        [models.{name}]
        ability = {ability:?}
        [models.{name}.openai]
        base_url = "{base_url}"
        model = "{name}-upstream"
        energy_class = "small"
        dollars_per_million_input_tokens = 1.0
        dollars_per_million_output_tokens = 10.0
        "#
    )
}
