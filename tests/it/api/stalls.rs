//! No request holds up the threads that serve all of them.
//!
//! Each thread that serves, and the one that does the rest, has a task that comes round as often as
//! it can. The CPU time of its thread between two rounds is what one task took without giving way,
//! whatever else the machine does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::rig::app::{TestApp, client, cloud_model};
use crate::rig::local_models::fake_model;
use crate::rig::mock_upstream::MockUpstream;

/// As promised. On a loaded machine the longest was 14 ms; a quadratic step takes far more for the
/// smallest request here.
const LONGEST: Duration = Duration::from_millis(50);

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap();
    Duration::new(u64::try_from(time.tv_sec).unwrap(), nanoseconds)
}

/// The longest time, in CPU microseconds, that one of the gateway's threads spent on one task.
#[derive(Clone, Default)]
struct Watchdog {
    longest_us: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Watchdog {
    async fn watch(self) {
        let mut last = thread_cpu();
        while !self.stop.load(Ordering::Relaxed) {
            // Sleeps while all do, so that an idle gateway costs nothing.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let now = thread_cpu();
            let took = u64::try_from(now.saturating_sub(last).as_micros()).unwrap();
            self.longest_us.fetch_max(took, Ordering::Relaxed);
            last = now;
        }
    }

    /// The longest time since the last call.
    fn take(&self) -> Duration {
        Duration::from_micros(self.longest_us.swap(0, Ordering::Relaxed))
    }
}

/// A gateway on a thread of its own, and its address.
fn start(config: String) -> (thread::JoinHandle<()>, Watchdog, std::net::SocketAddr) {
    let watchdog = Watchdog::default();
    let own = watchdog.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let gateway = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let app = TestApp::start_fake(&config).await;
            for model in ["small", "large", "drops"] {
                app.until_loaded(model).await;
            }
            own.longest_us.store(0, Ordering::Relaxed);
            tell.send(app.address).unwrap();
            let mut watching = JoinSet::new();
            for runtime in &app.serving_runtimes {
                watching.spawn_on(own.clone().watch(), runtime);
            }
            own.watch().await;
            watching.join_all().await;
            app.stop().await;
        });
    });
    (gateway, watchdog, told.recv().unwrap())
}

fn tool(at: usize) -> Value {
    json!({"type": "function", "function": {"name": format!("f{at}"), "parameters": {"type": "object", "properties": {}}}})
}

fn call(at: usize) -> Value {
    json!({"id": format!("c{at}"), "type": "function", "function": {"name": "f", "arguments": "{}"}})
}

fn chat(messages: &Value, more: &Value) -> Value {
    let mut body = json!({"messages": messages, "max_tokens": 2});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn many(count: usize, one: impl Fn(usize) -> Value) -> Value {
    (0..count).map(one).collect()
}

/// Bodies of up to 4 MB, each of another kind of too much.
fn hostile() -> Vec<(&'static str, String)> {
    let user = |text: String| json!([{"role": "user", "content": text}]);
    let turn = |at: usize| json!({"role": if at.is_multiple_of(2) { "user" } else { "assistant" }, "content": format!("turn {at}")});
    let nothing = json!({});
    let mut results = vec![json!({"role": "assistant", "tool_calls": many(9000, call)})];
    results.extend(
        (0..9000)
            .map(|at| json!({"role": "tool", "tool_call_id": format!("x{at}"), "content": "7"})),
    );
    let bodies = [
        ("tools", chat(&user("hi".into()), &json!({"tools": many(60_000, tool)}))),
        (
            "allowed tools",
            chat(
                &user("hi".into()),
                &json!({"tools": many(15_000, tool),
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto",
                "tools": many(15_000, |at| json!({"type": "function", "function": {"name": format!("f{at}")}}))}}}),
            ),
        ),
        ("messages", chat(&many(60_000, turn), &nothing)),
        ("turns within the limit", chat(&many(9_999, turn), &nothing)),
        ("results without calls", chat(&Value::Array(results), &nothing)),
        (
            "parts",
            chat(
                &json!([{"role": "user", "content": many(100_000, |_| json!({"type": "text", "text": "a"}))}]),
                &nothing,
            ),
        ),
        ("one word", chat(&user("x".repeat(4_000_000)), &nothing)),
        ("blanks", chat(&user(" ".repeat(4_000_000)), &nothing)),
        ("signs", chat(&user("+ ".repeat(2_000_000)), &nothing)),
        ("lines", chat(&user("A. \n".repeat(1_000_000)), &nothing)),
        ("unicode", chat(&user("é".repeat(2_000_000)), &nothing)),
        (
            "arguments",
            chat(
                &json!([{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": " ".repeat(4_000_000)}}]}]),
                &nothing,
            ),
        ),
        (
            "reasoning",
            chat(
                &json!([{"role": "user", "content": "hi"}, {"role": "assistant", "reasoning_content": "x".repeat(4_000_000)}]),
                &nothing,
            ),
        ),
        (
            "variables",
            chat(
                &user("hi".into()),
                &json!({"chat_template_kwargs": {"a": "x".repeat(4_000_000)}}),
            ),
        ),
        (
            "biases",
            chat(
                &user("hi".into()),
                &json!({"logit_bias": (0..200_000).map(|at| (at.to_string(), json!(1))).collect::<serde_json::Map<_, _>>()}),
            ),
        ),
        (
            "stops",
            chat(&user("hi".into()), &json!({"stop": many(200_000, |at| json!(format!("s{at}")))})),
        ),
        ("a long stop", chat(&user("hi".into()), &json!({"stop": ["x".repeat(4_000_000)]}))),
        (
            "choices",
            chat(
                &user("hi".into()),
                &json!({"guided_choice": many(200_000, |at| json!(format!("s{at}")))}),
            ),
        ),
        (
            "a schema",
            chat(
                &user("hi".into()),
                &json!({"guided_json": {"enum": many(200_000, |at| json!(format!("s{at}")))}}),
            ),
        ),
        ("many answers", chat(&user("x".repeat(10_000)), &json!({"n": 8}))),
    ];
    let model = |body: &mut Value| body["model"] = json!("MODEL");
    let bodies = bodies.into_iter().map(|(name, mut body)| {
        model(&mut body);
        (name, body.to_string())
    });
    bodies.chain(odd_json()).collect()
}

/// Bodies whose JSON is odd.
fn odd_json() -> [(&'static str, String); 6] {
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let around = |inner: &str| {
        format!(
            r#"{{"model":"MODEL","messages":[{{"role":"user","content":"hi"}}],{inner},"max_tokens":2}}"#
        )
    };
    [
        ("deep metadata", around(&format!("\"metadata\":{}", deep("[", "]")))),
        ("deep unknown", around(&format!("\"x\":{}", deep("{\"a\":[", "]}")))),
        (
            "a key a million times",
            around(&(0..400_000).map(|_| "\"n\":1").collect::<Vec<_>>().join(",")),
        ),
        (
            "unknown keys",
            around(&(0..300_000).map(|at| format!("\"k{at}\":1")).collect::<Vec<_>>().join(",")),
        ),
        ("wrong at the end", around(&format!("\"x\":\"{}\",\"n\":\"y\"", "a".repeat(4_000_000)))),
        ("no JSON", "{".repeat(4_000_000)),
    ]
}

#[tokio::test]
async fn no_request_holds_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let config = fake_model(dir.path(), "small", "", "")
        + &fake_model(dir.path(), "large", "", "").replace("context_tokens = 1024", "context_tokens = 4000000")
        + &fake_model(dir.path(), "drops", "", "overflow = \"drop_oldest_turns\"")
        // What the limits would refuse at once is let through to the steps behind them.
        + "[server.limits]\ntools = 100000\nmessages = 100000\nparts = 300000\nstops = 300000\nlogit_biases = 300000\nchoices = 300000\n";
    let upstream = MockUpstream::start().await;
    let config = cloud_model("cloud", 3.0, &upstream) + &config;
    let (gateway, watchdog, address) = start(config);
    let client = client();
    let mut stalls = Vec::new();
    for (name, body) in hostile() {
        for model in ["small", "large", "drops", "cloud", "auto"] {
            let body = body.replacen("MODEL", model, 1);
            watchdog.take();
            let sent = client.post(format!("http://{address}/v1/chat/completions"));
            let sent = sent.header("content-type", "application/json").body(body).send();
            let status = match tokio::time::timeout(Duration::from_secs(20), sent).await {
                Ok(reply) => {
                    let reply = reply.unwrap();
                    let status = reply.status();
                    let _ = reply.bytes().await;
                    status.as_u16()
                }
                Err(_) => 0,
            };
            let longest = watchdog.take();
            println!("{name} to {model}: {status}, {longest:?}");
            if longest > LONGEST {
                stalls.push((name, model, longest));
            }
        }
    }
    watchdog.stop.store(true, Ordering::Relaxed);
    gateway.join().unwrap();
    assert_eq!(stalls, [], "no task may keep the thread");
}
