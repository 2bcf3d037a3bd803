//! What an engine process may do and how long it lives, seen from outside.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::json;
use wattgate::backends::llama::{Phase, sandbox};

use crate::rig::app::{TestApp, ask, eventually};
use crate::rig::fake_engine::FAKE;
use crate::rig::local_models::{
    engine_pid, engine_state, fake_model, fake_smol, local_model, smol,
};
use crate::rig::serving::{Serving, serve};

/// The process of the only engine of `parent`.
fn engine_of(parent: u32) -> Option<u32> {
    children(parent).into_iter().next()
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn limit(pid: u32, name: &str) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

/// Open descriptors, by number.
fn descriptors(pid: u32) -> Vec<(u32, PathBuf)> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut open: Vec<_> = folder
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    open.sort();
    open
}

fn is_gone(pid: u32) -> bool {
    // A process that waits to be reaped has ended.
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

fn until_gone(pid: u32) -> Duration {
    let begun = Instant::now();
    while !is_gone(pid) {
        assert!(begun.elapsed() < Duration::from_secs(20), "engine {pid} outlives its gateway");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

#[tokio::test]
async fn an_engine_has_no_descriptor_of_its_gateway_and_no_privilege() {
    let dir = tempfile::tempdir().unwrap();
    let secret = fs::File::create(dir.path().join("secret")).unwrap();
    // As a shell that starts the gateway with `3<secret`.
    fcntl_setfd(&secret, FdFlags::empty()).unwrap();
    assert!(secret.as_raw_fd() > 2);
    let serving = Serving::start(&fake_smol(""));
    fcntl_setfd(&secret, FdFlags::CLOEXEC).unwrap();
    let pid = eventually(|| async { engine_of(serving.pid()) }).await;
    // The folder of its own mappings is opened when it is confined.
    let open = eventually(|| async {
        let open = descriptors(pid);
        open.iter().any(|(_, target)| target.starts_with("/proc")).then_some(open)
    })
    .await;
    for (number, target) in &open {
        let name = target.to_string_lossy();
        let expected = match number {
            1 => name == "/dev/null",
            2 => name.ends_with("process.log"),
            _ => name.starts_with("socket:") || name == format!("/proc/{pid}"),
        };
        assert!(expected, "{number} is {name} in {open:?}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(limit(pid, "Max core file size"), "0");
    assert_eq!(limit(pid, "Max open files"), "128");
    assert!(limit(pid, "Max data size").parse::<u64>().is_ok(), "its memory has a limit");
    if sandbox::available().system_calls {
        assert_eq!(status(pid, "Seccomp"), "2");
    }
    assert_eq!(serving.terminate(), Some(0));
}

/// Scripts in which an engine is killed with its gateway, and the request that brings it there.
const STATES: [(&str, &str, bool); 4] = [
    ("idle", "", false),
    ("loading", "load_ms = 60000", false),
    ("answering", "step_ms = 1000", true),
    ("hanging", "[default]\nhang_after = 1", true),
];

#[tokio::test]
async fn an_engine_dies_with_its_gateway_in_every_state() {
    for (name, script, asks) in STATES {
        for stopped in [false, true] {
            let models = tempfile::tempdir().unwrap();
            let serving = Serving::start(&fake_model(models.path(), "smol", script, ""));
            let pid = eventually(|| async { engine_of(serving.pid()) }).await;
            // One that is stopped before its first line has not asked to die with its parent yet.
            eventually(|| async { (status(pid, "NoNewPrivs") == "1").then_some(()) }).await;
            let client = crate::rig::app::client();
            if asks {
                let url = format!("{}/v1/models/smol", serving.url);
                eventually(|| async {
                    let reply = client.get(&url).send().await.ok()?.text().await.ok()?;
                    reply.contains("\"ready\":true").then_some(())
                })
                .await;
            }
            let chat = format!("{}/v1/chat/completions", serving.url);
            let mut body = ask("smol", "hi");
            body["stream"] = json!(true);
            let request = client.post(chat).json(&body).send();
            let open = if asks { Some(request.await.unwrap()) } else { None };
            if stopped {
                let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
                rustix::process::kill_process(raw, rustix::process::Signal::STOP).unwrap();
            }
            drop(serving.kill());
            let took = until_gone(pid);
            println!("{name}, stopped: {stopped}: gone after {took:?}");
            drop(open);
        }
    }
}

#[test]
fn a_confined_thread_reads_its_own_files_only_and_reaches_nobody() {
    let hold = sandbox::available();
    if !hold.is_whole() {
        println!("this kernel's sandbox is not whole: {hold}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (dir.path().join("own.fake.toml"), dir.path().join("other"));
    fs::write(&own, "").unwrap();
    fs::write(&other, "").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let confined = std::thread::spawn(move || {
        sandbox::restrict(std::slice::from_ref(&own));
        fs::read(&own).unwrap();
        assert!(fs::read(&other).is_err(), "another file");
        assert!(fs::write(&own, "x").is_err(), "its own file, for writing");
        assert!(fs::read_dir("/").is_err() && fs::read("/etc/passwd").is_err());
        assert!(
            fs::read(format!("/proc/{}/environ", std::os::unix::process::parent_id())).is_err()
        );
        assert!(std::net::TcpStream::connect(address).is_err());
        assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err());
        assert!(std::os::unix::net::UnixStream::connect("/run/dbus/system_bus_socket").is_err());
        fs::read("/proc/self/maps").unwrap();
    });
    confined.join().unwrap();
}

#[tokio::test]
async fn a_sandbox_that_is_required_and_whole_loads_and_one_that_is_off_is_none() {
    let dir = tempfile::tempdir().unwrap();
    for (mode, seccomp) in [("required", "2"), ("off", "0")] {
        if mode == "required" && !sandbox::available().is_whole() {
            continue;
        }
        let models = fake_model(dir.path(), "smol", "", "");
        let config = format!("[engines]\nsandbox = \"{mode}\"\n{models}");
        let app = TestApp::start_fake(&config).await;
        app.until_loaded("smol").await;
        let pid = engine_pid(&app, "smol").unwrap().as_raw_nonzero().get();
        let pid = u32::try_from(pid).unwrap();
        assert_eq!(status(pid, "Seccomp"), seccomp, "{mode}");
        assert_eq!(limit(pid, "Max data size") == "unlimited", mode == "off", "{mode}");
    }
}

#[tokio::test]
async fn a_model_that_crashes_with_every_request_is_given_up_until_it_is_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = fake_model(dir.path(), "smol", "[default]\ndie_after = 0", "");
    let app = TestApp::start_fake(&config).await;
    for _ in 0..2 {
        app.until_loaded("smol").await;
        let reply = app.chat(&ask("smol", "hi")).await;
        assert_eq!(reply.error(), (502, "api_error", "engine_died"), "{}", reply.text);
    }
    let mut state = engine_state(&app, "smol");
    let given_up = |phase: &Phase| matches!(phase, Phase::Down(why) if why.contains("damaged"));
    state.wait_for(|state| given_up(&state.phase)).await.unwrap();
    let restarts = state.borrow().restarts;
    for _ in 0..3 {
        let reply = app.chat(&ask("smol", "hi")).await;
        assert_eq!(reply.status, 503, "{}", reply.text);
    }
    assert_eq!(state.borrow().restarts, restarts, "no request starts it again");
    fs::write(dir.path().join("smol.fake.toml"), "").unwrap();
    let reply = app.post("/admin/models/smol/load", &json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(app.chat(&ask("smol", "hi")).await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_crash_after_an_answer_gives_no_model_up() {
    let dir = tempfile::tempdir().unwrap();
    let script = "[[answers]]\nwhen = \"die\"\ndie_after = 0";
    let app = TestApp::start_fake(&fake_model(dir.path(), "smol", script, "")).await;
    app.until_loaded("smol").await;
    assert_eq!(app.chat(&ask("smol", "hi")).await.status, 200);
    for _ in 0..3 {
        app.until_loaded("smol").await;
        assert_eq!(app.chat(&ask("smol", "die")).await.status, 502);
    }
    app.until_loaded("smol").await;
    app.stop().await;
}

#[test]
fn what_an_engine_says_of_a_file_is_one_line_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"load_error = "bad\n2026-01-01T00:00:00Z ERROR forged\r\u001b[2J\u2028forged""#;
    let config = fake_model(dir.path(), "smol", script, "");
    let serving = Serving::start(&config);
    let path = serving.dir.path().join("process.log");
    let begun = Instant::now();
    let log = loop {
        let log = fs::read_to_string(&path).unwrap();
        // The engine's own line, and the gateway's.
        if log.matches("forged").count() >= 4 {
            break log;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{log}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(
        !log.lines().any(|line| line.starts_with("2026-01-01") || line.starts_with("forged")),
        "{log}"
    );
    assert!(!log.contains('\u{1b}') && !log.contains('\u{2028}'), "{log:?}");
}

#[test]
fn check_says_what_holds_on_this_kernel() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), local_model("smol", FAKE.path(), "")).unwrap();
    let output = serve(dir.path(), "127.0.0.1:0").get_program().to_owned();
    let checked = std::process::Command::new(output).current_dir(dir.path()).arg("check").output();
    let text = String::from_utf8(checked.unwrap().stdout).unwrap();
    let line = format!("sandbox of the engines: {}", sandbox::available());
    assert!(text.contains(&line), "{text}");
}

#[test]
fn the_report_for_programs_has_what_holds_and_what_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let program = serve(dir.path(), "127.0.0.1:0").get_program().to_owned();
    let report = |setting: &str| -> serde_json::Value {
        let config = format!("[engines]\nsandbox = \"{setting}\"\n{}", fake_smol(""));
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let mut command = std::process::Command::new(&program);
        let checked = command.current_dir(dir.path()).args(["check", "--json"]).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&checked.stdout).unwrap()["sandbox"].clone()
    };
    let (hold, auto) = (sandbox::available(), report("auto"));
    let lacks = sandbox::lacks();
    assert_eq!(
        auto,
        json!({"setting": "auto", "files": hold.files, "system_calls": hold.system_calls, "suffices": true, "lacks": lacks})
    );
    // What does not hold is explained.
    assert!(hold.is_whole() || !lacks.is_empty());
    assert_eq!(report("required")["suffices"], hold.is_whole());
    let off = report("off");
    assert_eq!((&off["files"], &off["system_calls"]), (&json!(false), &json!(false)));
    assert_eq!(off["lacks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_real_engine_and_its_helper_answer_in_the_whole_sandbox() {
    let required = if sandbox::available().is_whole() { "required" } else { "auto" };
    let config = format!("[engines]\nsandbox = \"{required}\"\n{}", smol("slots = 2\n"));
    let app = TestApp::start(&config).await;
    app.until_loaded("smol").await;
    let mut request = ask("smol", "Who wrote Hamlet?");
    request["max_tokens"] = json!(8);
    request["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "it", "schema": {
        "type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,3}$"}}, "required": ["a"]}}});
    let reply = app.chat(&request).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let pid = engine_pid(&app, "smol").unwrap().as_raw_nonzero().get();
    let helpers = children(u32::try_from(pid).unwrap());
    assert!(!helpers.is_empty(), "it has a helper");
    for helper in helpers {
        assert_eq!(limit(helper, "Max data size"), (384_u64 << 20).to_string());
        assert_eq!(status(helper, "NoNewPrivs"), "1");
    }
    app.stop().await;
}
