//! `wattgate check --ready`: the health check of containers, against a gateway that serves, one
//! that cannot, and none.

use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::rig::cli::{stderr, wattgate};
use crate::rig::serving::Serving;

const KEYLESS: &str =
    "[models.x]\nability = 1.0\n[models.x.openai]\nbase_url = \"http://127.0.0.1:1/v1\"\n";

/// `check --ready` with a config that names this listener.
fn check(address: &str) -> Output {
    let dir = TempDir::new().unwrap();
    let config = format!("[server]\nlisten = \"{address}\"\n{KEYLESS}");
    std::fs::write(dir.path().join("config.toml"), config).unwrap();
    wattgate(dir.path(), &["check", "--ready"])
}

fn address(serving: &Serving) -> &str {
    serving.url.strip_prefix("http://").unwrap()
}

#[test]
fn a_gateway_with_a_model_that_can_answer_is_ready() {
    let serving = Serving::start(KEYLESS);
    let result = check(address(&serving));
    assert_eq!(result.status.code(), Some(0), "{}", stderr(&result));
    assert_eq!(String::from_utf8(result.stdout).unwrap(), "ready\n");
    // An address on the command line needs no config.
    let empty = TempDir::new().unwrap();
    let result = wattgate(empty.path(), &["check", "--ready", "--listen", address(&serving)]);
    assert_eq!(result.status.code(), Some(0), "{}", stderr(&result));
}

#[test]
fn a_gateway_without_a_model_that_can_answer_is_not_ready() {
    let serving =
        Serving::start(&format!("{KEYLESS}api_key_env = \"WATTGATE_TEST_NO_SUCH_KEY\"\n"));
    let result = check(address(&serving));
    assert_eq!(result.status.code(), Some(1));
    assert!(stderr(&result).contains("is not ready (HTTP 503)"), "{}", stderr(&result));
}

#[test]
fn a_missing_or_silent_gateway_is_not_ready_within_a_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = silent.local_addr().unwrap().to_string();
    let start = Instant::now();
    let result = check(&taken);
    assert_eq!(result.status.code(), Some(1));
    assert!(stderr(&result).contains("did not answer within 5 s"), "{}", stderr(&result));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    drop(silent);
    let result = check(&taken);
    assert_eq!(result.status.code(), Some(1));
    assert!(
        stderr(&result).contains(&format!("no gateway answers at {taken}")),
        "{}",
        stderr(&result)
    );
}
