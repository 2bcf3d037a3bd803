//! Engines that crash or are killed during a load, a prefill and an answer: their requests move to
//! another model without effect on others.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use wattgate::backends::llama::Phase;

use crate::rig::app::{PATIENCE, Sse, TestApp, ask_streaming, cloud_model, eventually};
use crate::rig::fake_engine::{FAKE, FakeModel};
use crate::rig::local_models::{engine_pid, engine_state, local_model, short};
use crate::rig::mock_upstream::MockUpstream;

/// Long enough for a crash in the middle of a load.
const LOADS_SLOWLY: &str = "load_ms = 4000";

const SIGNALS: [Signal; 2] = [Signal::SEGV, Signal::KILL];

/// `auto` asks `smol` first, then its twin, then the cloud. Two requests at a time in each local
/// model.
async fn three_models(smol: &FakeModel, load: &str) -> (TestApp, MockUpstream) {
    let upstream = MockUpstream::start().await;
    let config = "[policies.default]\nobjective = \"dollars\"\nfloor = 0.0\n".to_owned()
        + &local_model("smol", smol.path(), &format!("slots = 2\nload = \"{load}\""))
        + &local_model("twin", FAKE.path(), "slots = 2")
        + &cloud_model("cloud", 3.0, &upstream);
    (TestApp::start_fake(&config).await, upstream)
}

fn strike(app: &TestApp, model: &str, signal: Signal) {
    let pid = engine_pid(app, model).expect("the engine runs");
    kill_process(pid, signal).unwrap();
    // Rust's own handler takes the first SIGSEGV, restores the default and waits for the instruction
    // to fault again. Those that come before it is delivered count as one.
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(20));
        // Its number stays its own until the supervisor has reaped it, which it cannot meanwhile.
        let _gone = kill_process(pid, signal);
    }
}

fn story(model: &str, max_tokens: u32) -> Value {
    let mut request = ask_streaming(model, "Write a very long story.");
    request["max_tokens"] = json!(max_tokens);
    request
}

/// A stream on another engine, which the crash must not affect.
async fn witness(app: &TestApp) -> reqwest::Response {
    app.until_loaded("twin").await;
    let mut response = app.send("/v1/chat/completions", &story("twin", 60)).await;
    assert!(response.chunk().await.unwrap().is_some());
    response
}

/// The first attempt failed on `smol` with this outcome; its twin answered.
fn assert_moved(receipt: &Value, error: &str) {
    let attempts = &receipt["attempts"];
    assert_eq!((&attempts[0]["model"], &attempts[0]["error"]), (&json!("smol"), &json!(error)));
    assert_eq!(receipt["model"], "twin", "{receipt}");
}

/// Every request has one record with known energy, and no attempt is left open.
async fn assert_books(app: TestApp, count: usize) {
    let records = app.until_logged(count).await;
    for record in &records {
        let energy = record.receipt.energy.unwrap();
        assert!(energy.is_final && energy.joules.is_some(), "{record:?}");
    }
    let books = app.energy();
    assert_eq!(
        (books.conservation_error().0, books.unknown_settlements, books.open_attempts),
        (0, 0, 0)
    );
    assert_eq!(engine_state(&app, "twin").borrow().restarts, 0);
    let mut ids: Vec<_> =
        app.stop().await.into_iter().map(|record| record.receipt.request_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[tokio::test]
async fn a_crash_while_decoding_breaks_started_answers_and_moves_unstarted_ones() {
    let slow = FakeModel::new("slow_steps", "step_ms = 20");
    let (app, _upstream) = three_models(&slow, "preload").await;
    for signal in SIGNALS {
        app.until_loaded("smol").await;
        let mut doomed = Vec::new();
        for _ in 0..2 {
            let mut response = app.send("/v1/chat/completions", &story("smol", 900)).await;
            assert!(response.chunk().await.unwrap().is_some());
            doomed.push(response);
        }
        let other = witness(&app).await;
        // Both slots are taken: this request waits in the engine's queue.
        let request = short("auto", "Who wrote Hamlet?");
        let striking = async {
            app.until_in_flight("smol", 3).await;
            strike(&app, "smol", signal);
        };
        let (moved, ()) = tokio::join!(app.chat(&request), striking);
        for doomed in doomed {
            let doomed = Sse::of(doomed).await;
            assert_eq!(doomed.chunks.last().unwrap()["error"]["code"], "engine_died", "{signal:?}");
            assert!(!doomed.done, "{signal:?}");
        }
        assert_eq!(moved.status, 200, "{signal:?}: {}", moved.text);
        assert_moved(moved.receipt(), "engine_died");
        assert!(Sse::of(other).await.done, "{signal:?}");
    }
    assert_books(app, 8).await;
}

#[tokio::test]
async fn a_crash_during_prefill_moves_the_request_to_another_model() {
    let slow = FakeModel::new("slow_prefill", "step_ms = 2000");
    let (app, _upstream) = three_models(&slow, "preload").await;
    let mut request = ask_streaming("auto", &"word ".repeat(800));
    request["max_tokens"] = json!(2);
    for signal in SIGNALS {
        app.until_loaded("smol").await;
        let other = witness(&app).await;
        let striking = async {
            app.until_in_flight("smol", 1).await;
            strike(&app, "smol", signal);
        };
        let (moved, ()) = tokio::join!(app.stream(&request), striking);
        assert!(moved.done, "{signal:?}: {moved:?}");
        assert_moved(moved.receipt(), "engine_died");
        assert!(Sse::of(other).await.done, "{signal:?}");
    }
    assert_books(app, 4).await;
}

/// Waits until the engine's process loads its model.
async fn until_loading(app: &TestApp) {
    let mut state = engine_state(app, "smol");
    let loading =
        state.wait_for(|state| state.pid.is_some() && matches!(state.phase, Phase::Loading { .. }));
    tokio::time::timeout(PATIENCE, loading).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_crash_while_loading_moves_waiting_requests_to_another_model() {
    let held = FakeModel::new("crash_moves", LOADS_SLOWLY);
    let (app, _upstream) = three_models(&held, "on_demand").await;
    for (signal, restarts) in SIGNALS.into_iter().zip(1..) {
        let other = witness(&app).await;
        let request = ask_streaming("auto", "hello");
        let striking = async {
            until_loading(&app).await;
            strike(&app, "smol", signal);
        };
        let (moved, ()) = tokio::join!(app.stream(&request), striking);
        assert!(moved.done, "{signal:?}: {moved:?}");
        assert_moved(moved.receipt(), "unavailable");
        assert!(Sse::of(other).await.done, "{signal:?}");
        let mut state = engine_state(&app, "smol");
        let again = state.wait_for(|state| state.restarts == restarts);
        tokio::time::timeout(PATIENCE, again).await.unwrap().unwrap();
        eventually(|| async { engine_state(&app, "smol").borrow().takes_requests().then_some(()) })
            .await;
    }
    held.set("");
    assert_eq!(app.chat(&short("smol", "hi")).await.status, 200, "the next one loads it");
    assert_books(app, 5).await;
}

#[tokio::test]
async fn a_crash_while_loading_is_retried_and_others_answer_meanwhile() {
    let held = FakeModel::new("crash_retried", LOADS_SLOWLY);
    let (app, _upstream) = three_models(&held, "preload").await;
    for (signal, restarts) in SIGNALS.into_iter().zip(1..) {
        until_loading(&app).await;
        strike(&app, "smol", signal);
        let reply = app.chat(&short("auto", "hello")).await;
        assert_eq!(reply.status, 200, "{signal:?}: {}", reply.text);
        let mut state = engine_state(&app, "smol");
        let again = state.wait_for(|state| state.restarts >= restarts);
        tokio::time::timeout(PATIENCE, again).await.unwrap().unwrap();
    }
    held.set("");
    app.until_loaded("smol").await;
    assert_eq!(app.chat(&short("smol", "hi")).await.status, 200);
    assert_books(app, 3).await;
}
