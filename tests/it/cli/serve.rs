//! `wattgate serve` as a process: bad config, a port in use, signals.

use std::net::TcpListener;
use std::process::Output;

use tempfile::TempDir;

use crate::rig::app::client;
use crate::rig::serving::{Serving, serve};

const CLOUD_ONLY: &str =
    "[models.x]\nability = 1.0\n[models.x.openai]\nbase_url = \"http://127.0.0.1:1/v1\"\n";

fn output(dir: &TempDir, listen: &str) -> Output {
    serve(dir.path(), listen).output().unwrap()
}

fn folder(config: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), config).unwrap();
    dir
}

#[test]
fn a_bad_config_is_refused_before_the_port_is_bound() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    // The port is in use: binding it would have failed with another error.
    let result = output(&folder("[server]\nlisten = 7\n[surprise]\n"), &address);
    let errors = String::from_utf8_lossy(&result.stderr);
    assert_eq!(result.status.code(), Some(2), "{errors}");
    assert!(errors.contains("config.toml:2") && errors.contains("config.toml:3"), "{errors}");
    assert!(!errors.contains("cannot listen"), "{errors}");
}

#[test]
fn a_port_in_use_is_reported_with_a_remedy() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    let result = output(&folder(CLOUD_ONLY), &address);
    let errors = String::from_utf8_lossy(&result.stderr);
    assert_eq!(result.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&format!("cannot listen on {address}")), "{errors}");
    assert!(errors.contains("--listen"), "{errors}");
}

#[test]
fn sigterm_stops_serve_with_exit_code_0() {
    assert_eq!(Serving::start(CLOUD_ONLY).terminate(), Some(0));
}

#[test]
fn a_log_folder_that_cannot_be_created_is_reported() {
    let dir = folder(CLOUD_ONLY);
    std::fs::write(dir.path().join("data"), "a file where a folder should be").unwrap();
    let result = output(&dir, "127.0.0.1:0");
    let errors = String::from_utf8_lossy(&result.stderr);
    assert_eq!(result.status.code(), Some(1), "{errors}");
    assert!(errors.contains("traffic log"), "{errors}");
}

#[tokio::test]
async fn each_refusal_is_logged_without_request_content() {
    let serving = Serving::start(CLOUD_ONLY);
    let client = client();
    let url = format!("{}/v1/chat/completions", serving.url);
    let message = "[{\"role\": \"user\", \"content\": \"my-secret-word\"}]";
    let cases = [
        ("{\"model\": \"auto\", my-secret-word".to_owned(), "invalid_json"),
        (
            format!("{{\"model\": \"auto\", \"messages\": {message}, \"n\": \"my-secret-word\"}}"),
            "invalid_value",
        ),
        (format!("{{\"model\": \"my-secret-word\", \"messages\": {message}}}"), "model_not_found"),
        (format!("{{\"model\": \"x\", \"messages\": {message}}}"), "unavailable"),
    ];
    for (body, code) in cases {
        let response =
            client.post(&url).bearer_auth("sk-secret-key").body(body).send().await.unwrap();
        assert!(response.status().as_u16() >= 400, "{code}");
        let log = std::fs::read_to_string(serving.dir.path().join("process.log")).unwrap();
        assert!(log.contains(&format!("refused: {code}")), "{code}: {log}");
        assert!(!log.contains("my-secret-word") && !log.contains("sk-secret-key"), "{log}");
    }
}
