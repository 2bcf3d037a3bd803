//! Engines that crash, are killed or get hostile files: their requests move on, and nobody else notices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::watch;
use wattgate::backends::llama::{EngineState, Phase};
use wattgate::gateway::Kind;

use crate::app::{PATIENCE, Sse, TestApp, ask, ask_streaming, cloud_model, eventually};
use crate::engine::model_path;
use crate::local::{local_model, short, smol};
use crate::stand_in::StandIn;

const SIGNALS: [Signal; 2] = [Signal::SEGV, Signal::KILL];

/// `auto` asks `smol` first, then its twin, then the cloud.
async fn three_models() -> (TestApp, StandIn) {
    let stand_in = StandIn::start().await;
    let config = "[policies.default]\nobjective = \"dollars\"\nfloor = 0.0\n".to_owned()
        + &smol("slots = 2")
        + &local_model("twin", &model_path(), "slots = 2")
        + &cloud_model("cloud", 3.0, &stand_in);
    (TestApp::start(&config).await, stand_in)
}

fn engine(app: &TestApp, model: &str) -> watch::Receiver<EngineState> {
    match &app.gateway.router.model(model).unwrap().kind {
        Kind::Local { engine, .. } => engine.clone(),
        Kind::Cloud(_) => panic!("{model} is no local model"),
    }
}

fn strike(app: &TestApp, model: &str, signal: Signal) {
    let pid = engine(app, model).borrow().pid.expect("the engine runs");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
    if signal == Signal::SEGV {
        // Rust's own handler takes the first one, restores the default and waits for the instruction to fault again.
        std::thread::sleep(Duration::from_millis(20));
        let _gone = kill_process(pid, signal);
    }
}

fn story(model: &str, max_tokens: u32) -> Value {
    let mut request = ask_streaming(model, "Write a very long story.");
    request["max_tokens"] = json!(max_tokens);
    request
}

#[tokio::test]
async fn a_crash_while_decoding_ends_only_its_own_streams() {
    let (app, _stand_in) = three_models().await;
    app.until_loaded("twin").await;
    for signal in SIGNALS {
        app.until_loaded("smol").await;
        let mut doomed = app.send("/v1/chat/completions", &story("smol", 900)).await;
        let mut other = app.send("/v1/chat/completions", &story("twin", 60)).await;
        assert!(doomed.chunk().await.unwrap().is_some() && other.chunk().await.unwrap().is_some());
        strike(&app, "smol", signal);
        let (doomed, other) = tokio::join!(Sse::of(doomed), Sse::of(other));
        assert_eq!(doomed.chunks.last().unwrap()["error"]["code"], "engine_died", "{signal:?}");
        assert!(!doomed.done && other.done, "{signal:?}");
    }
    assert_eq!(engine(&app, "twin").borrow().restarts, 0);
    app.stop().await;
}

#[tokio::test]
async fn a_crash_while_reading_the_prompt_sends_the_request_elsewhere() {
    let (app, _stand_in) = three_models().await;
    app.until_loaded("twin").await;
    let mut request = short("auto", &"word ".repeat(800));
    request["max_tokens"] = json!(2);
    for signal in SIGNALS {
        app.until_loaded("smol").await;
        let backend = &app.gateway.router.model("smol").unwrap().backend;
        let striking = async {
            eventually(|| async { (backend.health().in_flight > 0).then_some(()) }).await;
            // Into the first of the batches that the prompt takes; before it would be as good.
            tokio::time::sleep(Duration::from_millis(150)).await;
            strike(&app, "smol", signal);
        };
        let (reply, ()) = tokio::join!(app.chat(&request), striking);
        assert_eq!(reply.status, 200, "{signal:?}: {}", reply.text);
        let attempts = &reply.receipt()["attempts"];
        assert_eq!(
            (&attempts[0]["model"], &attempts[0]["error"]),
            (&json!("smol"), &json!("engine_died"))
        );
        assert_eq!(reply.receipt()["model"], "twin");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_crash_while_loading_is_tried_again_and_others_answer_meanwhile() {
    let (app, _stand_in) = three_models().await;
    for (signal, restarts) in SIGNALS.into_iter().zip(1..) {
        let mut state = engine(&app, "smol");
        let loading = state
            .wait_for(|state| state.pid.is_some() && matches!(state.phase, Phase::Loading { .. }));
        tokio::time::timeout(PATIENCE, loading).await.unwrap().unwrap();
        strike(&app, "smol", signal);
        let reply = app.chat(&ask("auto", "hello")).await;
        assert_eq!(reply.status, 200, "{signal:?}: {}", reply.text);
        let again = state.wait_for(|state| state.restarts >= restarts);
        tokio::time::timeout(PATIENCE, again).await.unwrap().unwrap();
    }
    app.until_loaded("smol").await;
    assert_eq!(app.chat(&short("smol", "hi")).await.status, 200);
    app.stop().await;
}

/// The beginning of the real model, damaged in a way that depends on `case`.
fn hostile(case: u64, header: &[u8]) -> Vec<u8> {
    // Where a GGUF says how many tensors and how many pieces of metadata follow.
    const COUNTS: [usize; 2] = [8, 16];
    let mut state = case.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut dice = |sides: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % sides
    };
    let mut bytes = header.to_vec();
    match case % 4 {
        0 => bytes.truncate(dice(4096)),
        1 => {
            let huge = [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 40][dice(4)].to_le_bytes();
            bytes[COUNTS[dice(2)]..][..8].copy_from_slice(&huge);
        }
        // Lengths, types and values of the first pieces of metadata.
        2 => bytes[24..][dice(2000)..][..8].fill(0xff),
        _ => {
            for _ in 0..64 {
                let place = 4 + dice(8000);
                bytes[place] = u8::try_from(dice(256)).unwrap();
            }
        }
    }
    bytes
}

/// `WATTGATE_HOSTILE=400` for the long run.
#[tokio::test]
async fn hostile_files_are_refused_and_the_gateway_lives() {
    let cases = std::env::var("WATTGATE_HOSTILE").map_or(24, |text| text.parse::<u64>().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let header = std::fs::read(model_path()).unwrap()[..3 << 20].to_vec();
    let stand_in = StandIn::start().await;
    for first in (0..cases).step_by(8) {
        let names: Vec<String> =
            (first..cases.min(first + 8)).map(|case| format!("m{case}")).collect();
        let mut config = cloud_model("cloud", 3.0, &stand_in);
        for (name, case) in names.iter().zip(first..) {
            config +=
                &local_model(name, &write(dir.path(), name, &hostile(case, &header)), "slots = 1");
        }
        let app = TestApp::start(&config).await;
        for name in &names {
            let mut state = engine(&app, name);
            let refused = state.wait_for(|state| matches!(state.phase, Phase::Down(_)));
            let refused = tokio::time::timeout(PATIENCE, refused).await;
            drop(refused.unwrap_or_else(|_| panic!("{name} neither loads nor fails")).unwrap());
            let reply = app.chat(&ask(name, "hello")).await;
            assert_eq!(reply.status, 503, "{name}: {}", reply.text);
        }
        let reply = app.chat(&ask("auto", "hello")).await;
        assert_eq!(reply.receipt()["model"], "cloud", "{}", reply.text);
        app.stop().await;
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(format!("{name}.gguf"));
    std::fs::write(&path, bytes).unwrap();
    path
}
