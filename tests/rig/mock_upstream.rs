//! The mock upstream of the Rust tests as a program, so that the Python tests use the same one.
//!
//! Prints its base URL, then answers each line on stdin with every request so far, as one line of
//! JSON. Exits when stdin closes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop loudly"
)]
#![expect(unreachable_pub, reason = "`pub` marks what the mock offers to the Rust tests")]

#[path = "../it/rig/mock_upstream.rs"]
#[expect(dead_code, reason = "only the Rust tests set modes and wait for requests to end")]
mod mock_upstream;

use std::io::{self, BufRead, Write};

use mock_upstream::{MockUpstream, Received};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> io::Result<()> {
    let upstream = MockUpstream::start().await;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", upstream.base_url())?;
    for line in io::stdin().lock().lines() {
        line?;
        let received: Vec<Value> = upstream.requests().iter().map(described).collect();
        writeln!(stdout, "{}", Value::from(received))?;
    }
    Ok(())
}

fn described(request: &Received) -> Value {
    let headers = request.headers.iter().map(|(name, value)| {
        (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes())))
    });
    json!({
        "path": request.path,
        "headers": headers.collect::<serde_json::Map<_, _>>(),
        "body": request.body,
    })
}
