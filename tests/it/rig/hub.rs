//! A mock of the model hub: one file of one repository, with the headers its client needs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

/// A running mock hub.
pub struct Hub {
    pub address: String,
    /// First byte of each request for content.
    served_from: Arc<Mutex<Vec<usize>>>,
}

/// How the hub answers a request for content.
#[derive(Clone, Copy, PartialEq)]
pub enum HubMode {
    Honest,
    /// Announces the whole file and sends only the first half.
    BreaksOff,
    /// Sends the first half and then nothing until the client disconnects.
    Stalls,
    Forbids,
}

impl Hub {
    pub fn start(content: &'static [u8], mode: HubMode) -> Self {
        Self::at(TINY_PATH, content, mode)
    }

    /// Starts a hub with its file at another path.
    pub fn at(path: &'static str, content: &'static [u8], mode: HubMode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served_from = Arc::new(Mutex::new(Vec::new()));
        let seen = served_from.clone();
        // The thread ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, path, content, mode, &seen);
            }
        });
        Self { address, served_from }
    }

    pub fn downloads(&self) -> Vec<usize> {
        self.served_from.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    served: &str,
    content: &[u8],
    mode: HubMode,
    served_from: &Mutex<Vec<usize>>,
) {
    let (path, range) = request(&stream);
    let head = |status: &str, headers: &str| {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n")
    };
    if mode == HubMode::Forbids {
        let _ = stream.write_all(head("401 Unauthorized", "content-length: 0\r\n").as_bytes());
        return;
    }
    if path != served {
        let _ = stream.write_all(head("404 Not Found", "content-length: 0\r\n").as_bytes());
        return;
    }
    let (start, end) = range.unwrap_or((0, None));
    if start >= content.len() {
        let refusal = head("416 Range Not Satisfiable", "content-length: 0\r\n");
        let _ = stream.write_all(refusal.as_bytes());
        return;
    }
    let end = end.map_or(content.len(), |last| content.len().min(last + 1));
    let (total, etag) = (content.len(), hex(content));
    let headers = format!(
        "content-length: {}\r\ncontent-range: bytes {start}-{}/{total}\r\netag: \"{etag}\"\r\nx-repo-commit: c0ffee\r\n",
        end - start,
        end - 1,
    );
    let mut body = &content[start..end];
    // The client asks for one byte first, to learn the size.
    if end - start > 1 {
        served_from.lock().unwrap().push(start);
        if matches!(mode, HubMode::BreaksOff | HubMode::Stalls) {
            body = &body[..body.len() / 2];
        }
    }
    let _ = stream.write_all(head("206 Partial Content", &headers).as_bytes());
    let _ = stream.write_all(body);
    if mode == HubMode::Stalls && body.len() > 1 {
        let _ = stream.read(&mut [0]);
    }
}

/// Path and range of a request.
fn request(stream: &TcpStream) -> (String, Option<(usize, Option<usize>)>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()))
        })
        .collect();
    let range = headers.get("range").and_then(|range| {
        let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse().ok()?, end.parse().ok()))
    });
    (path, range)
}

pub fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

pub const TINY: &[u8] = b"GGUF and then some bytes that stand for weights";
pub const SOURCE: &str = "hf:org/repo/tiny.gguf@v1";
const TINY_PATH: &str = "/org/repo/resolve/v1/tiny.gguf";
