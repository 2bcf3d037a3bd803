//! An upstream on loopback whose answers the test leads step by step.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::unruly_upstream::{Step, read_request};

/// Timeout of a wait for an event that happens at once; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct LedUpstream {
    listener: TcpListener,
}

/// One request, read to its end, and the connection for its answer.
pub struct Exchange {
    stream: TcpStream,
}

impl LedUpstream {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// For a model's `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.listener.local_addr().unwrap())
    }

    /// The next request.
    pub async fn accept(&self) -> Exchange {
        let accepted = timeout(PATIENCE, async {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            read_request(&mut stream).await.expect("a request");
            Exchange { stream }
        });
        accepted.await.expect("a request comes in time")
    }
}

impl Exchange {
    /// Does what a step says.
    pub async fn play(&mut self, step: &Step) {
        match step {
            // An error means that the gateway has closed the connection.
            Step::Say(text) => drop(self.stream.write_all(text.as_bytes()).await),
            Step::Wait(time) => tokio::time::sleep(*time).await,
            Step::Close => drop(self.stream.shutdown().await),
            Step::Silence | Step::Repeat(_) | Step::Next => {}
        }
    }

    /// Waits until the gateway has closed the connection.
    pub async fn until_closed(&mut self) {
        let closed = timeout(PATIENCE, async {
            let mut rest = [0; 64];
            loop {
                match self.stream.read(&mut rest).await {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) => {
                        assert!(matches!(error.kind(), ErrorKind::ConnectionReset), "{error}");
                        return;
                    }
                }
            }
        });
        closed.await.expect("the gateway closes the connection in time");
    }
}
