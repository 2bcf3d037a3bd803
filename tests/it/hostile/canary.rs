//! Strings planted in every field and header of requests to the real binary come out nowhere but in
//! the replies to their own client, and keys not even there.

use std::fs;
use std::path::Path;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::rig::app::{client, cloud_model, eventually};
use crate::rig::fake_engine::FakeModel;
use crate::rig::local_models::local_model;
use crate::rig::mock_upstream::{MockUpstream, Mode};
use crate::rig::raw_http::{h2, sent};
use crate::rig::serving::Serving;

/// Part of every planted string, and of nothing else.
const CANARY: &str = "Zq7canary";

/// The client's key, which no reply repeats either.
const CLIENT_KEY: &str = "sk-Zq7canary-client";

/// The gateway's own key at its upstream.
const OWN_KEY: &str = "sk-Zq7canary-own";

fn planted(what: &str) -> String {
    format!("{CANARY}-{what}")
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in [
        "cookie",
        "user-agent",
        "referer",
        "x-api-key",
        "api-key",
        "x-forwarded-for",
        "x-wattgate-session",
        "openai-organization",
        "traceparent",
        "x-unknown",
    ] {
        headers.insert(name, planted(name).parse().unwrap());
    }
    headers.insert("authorization", format!("Bearer {CLIENT_KEY}").parse().unwrap());
    headers
}

/// A conversation with a string in every field that holds text.
fn full(model: &str) -> Value {
    json!({
        "model": model,
        "messages": [
            {"role": "system", "content": planted("system"), "name": planted("name")},
            {"role": "user", "content": [{"type": "text", "text": planted("part")}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": planted("id"), "type": "function",
                "function": {"name": planted("called"), "arguments": json!({"a": planted("argument")}).to_string()}}]},
            {"role": "tool", "tool_call_id": planted("id"), "content": planted("result")},
            {"role": "user", "content": planted("prompt")},
        ],
        "tools": [{"type": "function", "function": {"name": planted("tool"), "description": planted("description"),
            "parameters": {"type": "object", "properties": {planted("property"): {"enum": [planted("enum")]}}}}}],
        "stop": [planted("stop")],
        "user": planted("user"),
        "metadata": {planted("metadata"): planted("value"), "session_id": planted("session")},
        "chat_template_kwargs": {planted("kwarg"): planted("kwarg")},
        planted("unknown"): planted("unknown"),
    })
}

fn short(model: &str, prompt: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}]})
}

/// Requests that fail, each with strings where it does.
fn broken() -> Vec<(&'static str, String)> {
    let chat = "/v1/chat/completions";
    let with = |field: &str, value: Value| {
        let mut body = short("auto", &planted("prompt"));
        body[field] = value;
        (chat, body.to_string())
    };
    vec![
        (chat, planted("no-json")),
        (chat, short(&planted("model"), "x").to_string()),
        with("n", json!(planted("n"))),
        with("wattgate", json!({planted("option"): 1})),
        with("wattgate", json!({"objective": planted("objective")})),
        with("response_format", json!({"type": planted("format")})),
        with("messages", json!([{"role": planted("role"), "content": "x"}])),
        with("tool_choice", json!(planted("choice"))),
        with("logit_bias", json!({planted("bias"): 1})),
        ("/v1/embeddings", json!({"model": "auto", "input": planted("input")}).to_string()),
        ("/v1/completions", json!({"model": "auto", "prompt": [[planted("token")]]}).to_string()),
        (
            "/v1/feedback",
            json!({"request_id": planted("id"), "score": 1, "comment": planted("comment")})
                .to_string(),
        ),
        (
            "/v1/feedback",
            json!({"request_id": "x", "score": 1, "source": planted("source")}).to_string(),
        ),
        ("/v1/Zq7canary-path?Zq7canary=Zq7canary-query", "{}".to_owned()),
        ("/admin/models/Zq7canary-model/load", "{}".to_owned()),
        ("/admin/router/reload?Zq7canary-query", "{}".to_owned()),
    ]
}

/// The text of every file below a folder.
fn files(dir: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all += &files(&path);
        } else if path.file_name().is_some_and(|name| name != "config.toml") {
            all += &String::from_utf8_lossy(&fs::read(&path).unwrap());
        }
    }
    all
}

/// Command lines and environments of a process's children, and its own command line.
fn processes(pid: u32) -> String {
    let read =
        |path: String| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let children = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = children.map(|task| read(format!("{}/children", task.path().display())));
    let children: Vec<String> =
        children.flat_map(|text| text.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    let each = children.iter().filter(|child| !child.is_empty()).map(|child| {
        read(format!("/proc/{child}/cmdline")) + &read(format!("/proc/{child}/environ"))
    });
    read(format!("/proc/{pid}/cmdline")) + &each.collect::<String>()
}

/// The lines of a text that hold a planted string.
fn leaks(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains(CANARY)).take(3).collect()
}

/// What an upstream may do instead of answering.
fn failures() -> [Mode; 7] {
    [
        Mode::Status(400),
        Mode::Status(401),
        Mode::Status(500),
        Mode::RateLimited("1"),
        Mode::CutMidAnswer,
        Mode::Verbatim(
            400,
            "application/json",
            r#"{"error":{"message":"no: Zq7canary-prompt","code":"Zq7canary-prompt"}}"#,
        ),
        Mode::Verbatim(200, "text/html", "Zq7canary-prompt"),
    ]
}

/// Half a request, one for another host, and one over HTTP/2.
async fn send_raw(base: &str) {
    let address = base.strip_prefix("http://").unwrap().parse().unwrap();
    let half = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: {CANARY}\r\ncontent-length: 99\r\n\r\n{CANARY}"
    );
    drop(sent(address, half.as_bytes()).await);
    let evil = format!("GET /{CANARY} HTTP/1.1\r\nhost: {CANARY}.example\r\n\r\n");
    drop(sent(address, evil.as_bytes()).await);
    let body = short("local", &planted("h2")).to_string();
    let mut second =
        sent(address, &[h2::start(), h2::post(1, "/v1/chat/completions", &body)].concat()).await;
    second.flush().await.unwrap();
    crate::rig::raw_http::read_until(&mut second, "wattgate").await;
}

#[tokio::test]
async fn nothing_planted_in_a_request_comes_out() {
    let upstream = MockUpstream::start().await;
    let fake = FakeModel::new("canary", "load_ms = 1\nstep_ms = 1");
    let config = cloud_model("cloud", 3.0, &upstream)
        + "api_key_env = \"CANARY_KEY\"\n"
        + &local_model("local", fake.path(), "")
        + "[log]\naccess = true\n";
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let env = [("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full"), ("CANARY_KEY", OWN_KEY)];
    let serving = Serving::start_with_env(dir, &env);
    let base = &serving.url;
    let http = client();
    let text = async |path: &str| {
        let reply = http.get(format!("{base}{path}")).headers(headers()).send().await.unwrap();
        reply.text().await.unwrap()
    };
    eventually(|| async {
        text("/v1/models/local").await.contains("\"ready\":true").then_some(())
    })
    .await;
    let mut replies = String::new();
    let mut ids = Vec::new();
    let mut post = async |path: &str, body: String| {
        let request = http.post(format!("{base}{path}")).headers(headers());
        let reply = request.header("content-type", "application/json").body(body).send();
        // Some upstreams cut the connection.
        let Ok(reply) = reply.await else { return };
        for (name, value) in reply.headers() {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            assert_eq!(leaks(&value), [""; 0], "{path}: {name}");
        }
        ids.extend(reply.headers().get("x-wattgate-request-id").cloned());
        replies += &reply.text().await.unwrap_or_default();
    };
    for model in ["local", "cloud", "auto"] {
        for stream in [false, true] {
            let mut body = full(model);
            body["stream"] = json!(stream);
            post("/v1/chat/completions?key=Zq7canary-query", body.to_string()).await;
            let mut plain = short(model, &planted("plain"));
            plain["stream"] = json!(stream);
            post("/v1/chat/completions", plain.to_string()).await;
        }
        post("/v1/route", full(model).to_string()).await;
    }
    for (path, body) in broken() {
        post(path, body).await;
    }
    for mode in failures() {
        upstream.respond_with(mode);
        for stream in [false, true] {
            let mut body = full("cloud");
            body["stream"] = json!(stream);
            post("/v1/chat/completions", body.to_string()).await;
        }
    }
    send_raw(base).await;

    for key in [CLIENT_KEY, OWN_KEY] {
        assert!(!replies.contains(key), "a reply repeats a key");
    }
    let metrics = text("/metrics").await;
    assert!(metrics.contains("wattgate_requests_total"), "{metrics}");
    assert_eq!(leaks(&metrics), [""; 0], "metrics");
    let mut records = 0;
    for id in &ids {
        let record = text(&format!("/v1/requests/{}", id.to_str().unwrap())).await;
        records += usize::from(record.contains("\"candidates\""));
        assert_eq!(leaks(&record), [""; 0], "a record");
    }
    assert!(records > 20, "{records} of {} requests are remembered", ids.len());
    assert_eq!(leaks(&processes(serving.pid())), [""; 0], "processes");
    for received in upstream.requests() {
        let sent = format!("{:?} {}", received.headers, received.path);
        assert!(sent.contains(OWN_KEY) && !sent.contains(CLIENT_KEY), "{sent}");
        assert_eq!(leaks(&sent.replace(OWN_KEY, "")), [""; 0], "headers to an upstream");
    }
    let pid = serving.pid();
    serving.signal("TERM");
    eventually(|| async {
        (!Path::new(&format!("/proc/{pid}/task/{pid}/children")).exists()
            || fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| stat.contains(") Z ")))
        .then_some(())
    })
    .await;
    let written = files(serving.dir.path());
    assert!(written.contains("\"outcome\"") && written.contains("refused: "), "nothing was logged");
    assert_eq!(leaks(&written), [""; 0], "logs");
}
