//! A stop of the real binary with clients of every kind: it ends within its grace period, with exit
//! code 0, and what was cut off is in the log.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use wattgate::traffic::Outcome;

use crate::rig::app::{ask, ask_streaming, client, cloud_model_at, eventually, records};
use crate::rig::fake_engine::FakeModel;
use crate::rig::local_models::local_model;
use crate::rig::raw_http::{h2, post, read_until, sent};
use crate::rig::serving::Serving;
use crate::rig::unruly_upstream::{Step, UnrulyUpstream};

const GRACE: Duration = Duration::from_millis(700);

/// How much longer a loaded machine may take for the rest of the shutdown.
const SLACK: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Silent,
    IdleKeepAlive,
    HalfHead,
    HalfBody,
    CloudStream,
    LocalStream,
    NeverReads,
    HangingUpstream,
    Http2Idle,
    Http2WithoutWindow,
}

const KINDS: [Kind; 10] = [
    Kind::Silent,
    Kind::IdleKeepAlive,
    Kind::HalfHead,
    Kind::HalfBody,
    Kind::CloudStream,
    Kind::LocalStream,
    Kind::NeverReads,
    Kind::HangingUpstream,
    Kind::Http2Idle,
    Kind::Http2WithoutWindow,
];

impl Kind {
    /// Whether a model works for it when the stop comes.
    fn is_answered(self) -> bool {
        use Kind::{CloudStream, HangingUpstream, Http2WithoutWindow, LocalStream, NeverReads};
        [CloudStream, LocalStream, NeverReads, HangingUpstream, Http2WithoutWindow].contains(&self)
    }

    async fn start(self, address: SocketAddr) -> TcpStream {
        let path = "/v1/chat/completions";
        let streaming = |model| post(path, "", &ask_streaming(model, "Count"));
        let health = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
        let request = match self {
            Self::Silent => vec![],
            Self::IdleKeepAlive => health.to_vec(),
            Self::HalfHead => health[..20].to_vec(),
            Self::HalfBody => {
                let whole = post(path, "", &ask("cloud", "hi"));
                whole[..whole.len() - 4].to_vec()
            }
            Self::CloudStream => streaming("cloud"),
            Self::LocalStream => streaming("local"),
            Self::NeverReads => streaming("flood"),
            Self::HangingUpstream => post(path, "", &ask("silent", "hi")),
            Self::Http2Idle => h2::start(),
            Self::Http2WithoutWindow => {
                let body = ask_streaming("flood", "hi").to_string();
                [h2::start_without_window(), h2::post(1, path, &body)].concat()
            }
        };
        let mut stream = sent(address, &request).await;
        match self {
            Self::IdleKeepAlive => drop(read_until(&mut stream, "ok\n").await),
            Self::CloudStream | Self::LocalStream => {
                read_until(&mut stream, "data: ").await;
            }
            _ => {}
        }
        stream
    }
}

/// The upstreams of `cloud`, `flood` and `silent`, and the config of these models and of `local`.
async fn models(name: &str) -> ([UnrulyUpstream; 3], String) {
    let Step::Say(event) = Step::text(&"word ".repeat(800)) else { unreachable!() };
    let upstreams = [
        UnrulyUpstream::start(vec![vec![Step::head(), Step::text("Hi"), Step::Silence]]).await,
        UnrulyUpstream::start(vec![vec![Step::head(), Step::Say(event.repeat(6_000))]]).await,
        UnrulyUpstream::start(vec![vec![Step::Silence]]).await,
    ];
    let models = ["cloud", "flood", "silent"].iter().zip(&upstreams);
    let clouds = models.map(|(name, one)| cloud_model_at(name, 1.0, &one.base_url()));
    let fake = FakeModel::new(name, "load_ms = 1\nstep_ms = 20");
    let config = clouds.collect::<String>()
        + &local_model("local", fake.path(), "")
        + &format!("[server]\nshutdown_grace_ms = {}\n", GRACE.as_millis());
    (upstreams, config)
}

async fn until_ready(serving: &Serving) {
    let url = format!("{}/v1/models/local", serving.url);
    eventually(|| async {
        let card = client().get(&url).send().await.ok()?.text().await.ok()?;
        card.contains("\"ready\":true").then_some(())
    })
    .await;
}

/// Waits until models work on this many requests.
async fn until_in_flight(serving: &Serving, count: usize) {
    let url = format!("{}/v1/models", serving.url);
    eventually(|| async {
        let models = client().get(&url).send().await.ok()?.text().await.ok()?;
        let models: serde_json::Value = serde_json::from_str(&models).ok()?;
        let each = models["data"].as_array()?.iter().filter_map(|one| one["in_flight"].as_u64());
        (each.sum::<u64>() == count as u64).then_some(())
    })
    .await;
}

fn address(serving: &Serving) -> SocketAddr {
    serving.url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Sends the signals and waits for the exit.
async fn stopped(serving: &mut Serving, signals: &[&str]) -> (ExitStatus, Duration) {
    let began = Instant::now();
    for (number, signal) in signals.iter().enumerate() {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        serving.signal(signal);
    }
    loop {
        if let Some(status) = serving.exited() {
            return (status, began.elapsed());
        }
        assert!(began.elapsed() < Duration::from_mins(1), "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stop_with(kinds: &[Kind], signals: &[&str], name: &str) {
    let (_upstreams, config) = models(name).await;
    let mut serving = Serving::start(&config);
    until_ready(&serving).await;
    let mut clients = Vec::new();
    for kind in kinds {
        clients.push(kind.start(address(&serving)).await);
    }
    let answered = kinds.iter().filter(|kind| kind.is_answered()).count();
    until_in_flight(&serving, answered).await;
    let (status, took) = stopped(&mut serving, signals).await;
    assert_eq!(status.code(), Some(0), "{kinds:?} {signals:?}: {status}");
    assert!(took < GRACE + SLACK, "{kinds:?} {signals:?}: {took:?}");
    let records = records(&serving.dir.path().join("data/traffic"));
    // A second signal ends at once: what it cuts off may be lost.
    if signals.len() == 1 {
        assert_eq!(records.len(), answered, "{kinds:?} {signals:?}");
        for record in records {
            assert_eq!((record.outcome, record.status), (Outcome::Cancelled, 499), "{kinds:?}");
        }
    }
    drop(clients);
}

#[tokio::test]
async fn each_kind_of_client_is_cut_off_by_sigterm_within_the_grace_period() {
    for kind in KINDS {
        stop_with(&[kind], &["TERM"], "stop-term").await;
    }
}

#[tokio::test]
async fn all_kinds_at_once_are_cut_off_by_every_signal() {
    for (number, signals) in
        [&["TERM"][..], &["INT"], &["TERM", "TERM"], &["INT", "TERM"]].into_iter().enumerate()
    {
        stop_with(&KINDS, signals, &format!("stop-all-{number}")).await;
    }
}

#[tokio::test]
async fn answers_that_end_within_the_grace_period_are_whole() {
    let steps = vec![
        Step::head(),
        Step::text("Hi"),
        Step::Wait(Duration::from_millis(500)),
        Step::finish(),
        Step::done(),
    ];
    let upstream = UnrulyUpstream::start(vec![steps]).await;
    let config = cloud_model_at("cloud", 1.0, &upstream.base_url());
    let mut serving = Serving::start(&config);
    let mut stream = Kind::CloudStream.start(address(&serving)).await;
    let stopping = stopped(&mut serving, &["TERM"]);
    let ((status, _), rest) = tokio::join!(stopping, read_until(&mut stream, "[DONE]"));
    assert_eq!(status.code(), Some(0));
    assert!(rest.contains("\"stop\""), "{rest}");
    let records = records(&serving.dir.path().join("data/traffic"));
    assert_eq!((records.len(), records[0].outcome), (1, Outcome::Answered));
}
