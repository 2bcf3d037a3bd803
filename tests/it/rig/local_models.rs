//! Local models in a gateway under test: their configuration and the state of their engines.

use rustix::process::Pid;
use serde_json::{Value, json};
use tokio::sync::watch;
use wattgate::backends::llama::EngineState;
use wattgate::serving::Kind;

use crate::rig::app::{TestApp, ask};
use crate::rig::engine::model_path;
use crate::rig::fake_engine::FAKE;

/// SmolLM2 as `smol`, small enough to start fast.
pub fn smol(extra: &str) -> String {
    local_model("smol", &model_path(), extra)
}

/// A fake model as `smol`: for [`TestApp::start_fake`].
pub fn fake_smol(extra: &str) -> String {
    local_model("smol", FAKE.path(), extra)
}

pub fn local_model(name: &str, path: &std::path::Path, extra: &str) -> String {
    format!(
        "[models.{name}]\nability = -2.5\n[models.{name}.llama]\nsource = \"file:{}\"\n\
         context_tokens = 1024\n{extra}\n",
        path.display()
    )
}

/// A model of the fake engine, which answers from `script`: needs no model file.
pub fn fake_model(dir: &std::path::Path, name: &str, script: &str, extra: &str) -> String {
    let path = dir.join(format!("{name}.fake.toml"));
    std::fs::write(&path, script).unwrap();
    local_model(name, &path, extra)
}

/// State of the model's engine.
pub fn engine_state(app: &TestApp, model: &str) -> watch::Receiver<EngineState> {
    match &app.gateway.router.model(model).unwrap().primary.kind {
        Kind::Local { engine, .. } => engine.clone(),
        Kind::Cloud(_) => panic!("{model} is no local model"),
    }
}

/// Process of the model's engine; `None` if it is not running.
pub fn engine_pid(app: &TestApp, model: &str) -> Option<Pid> {
    let pid = engine_state(app, model).borrow().pid?;
    Pid::from_raw(i32::try_from(pid).unwrap())
}

pub fn short(model: &str, prompt: &str) -> Value {
    let mut request = ask(model, prompt);
    request["max_tokens"] = json!(16);
    request["temperature"] = json!(0);
    request
}
