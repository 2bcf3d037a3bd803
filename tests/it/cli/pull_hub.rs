//! Pulls from a hub that redirects, ignores ranges, fails for a moment or sends something else than
//! it announced.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::rig::hub::{SOURCE, TINY, hex};
use crate::rig::model_folder::ModelFolder;

/// Headers of a request, names in lower case.
type Headers = BTreeMap<String, String>;

/// A server on loopback that answers with what `reply` returns: status line, header lines, body.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Headers>>>,
}

impl Server {
    fn start(reply: impl Fn(usize, &Headers) -> (String, Vec<u8>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // Ends with the test's process, as its listener does.
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let headers = headers(&stream);
                let number = seen.lock().unwrap().len();
                let (head, body) = reply(number, &headers);
                seen.lock().unwrap().push(headers);
                let head = format!("HTTP/1.1 {head}connection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<Headers> {
        self.requests.lock().unwrap().clone()
    }
}

fn headers(stream: &TcpStream) -> Headers {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let lines = lines.skip(1).take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned())))
        .collect()
}

/// The part of `content` that the request's range names, described as `etag`.
fn part(content: &[u8], etag: &str, headers: &Headers) -> (String, Vec<u8>) {
    let range = headers["range"].strip_prefix("bytes=").unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(content.len(), |last: usize| last + 1);
    let (length, last, total) = (end - start, end - 1, content.len());
    let head = format!(
        "206 Partial Content\r\ncontent-length: {length}\r\ncontent-range: bytes {start}-{last}/{total}\r\netag: \"{etag}\"\r\n"
    );
    (head, content[start..end].to_vec())
}

fn folder_of(server: &Server) -> ModelFolder {
    let mut folder = ModelFolder::new(SOURCE, None, None);
    folder.endpoint.clone_from(&server.address);
    folder
}

/// Leaves `bytes` of an earlier download of the file with this `ETag`.
fn leave(folder: &ModelFolder, etag: &str, bytes: &[u8]) {
    let blobs = folder.hub_file().with_file_name("tiny.gguf.hub").join("models--org--repo/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{etag}.part")), bytes).unwrap();
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_the_host_it_redirects_to() {
    let storage = Server::start(|_, headers| part(TINY, "of the storage", headers));
    let location = format!("{}/blob?signature=s3cret", storage.address);
    let hub = Server::start(move |_, _| {
        let (etag, length) = (hex(TINY), TINY.len());
        let head = format!(
            "302 Found\r\nlocation: {location}\r\nx-linked-etag: \"{etag}\"\r\nx-linked-size: {length}\r\ncontent-length: 0\r\n"
        );
        (head, Vec::new())
    });
    let folder = folder_of(&hub);
    leave(&folder, &hex(TINY), &TINY[..10]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    folder.prepare(command.args(["models", "pull"])).env("HF_TOKEN", "hf_test");
    let output = command.output().unwrap();
    let shown = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && !shown.contains("s3cret"), "{shown}");
    assert_eq!(std::fs::read(folder.hub_file()).unwrap(), TINY);
    let tokens = |server: &Server| {
        let requests = server.requests();
        requests.iter().filter(|headers| headers.contains_key("authorization")).count()
    };
    assert_eq!((tokens(&hub), tokens(&storage)), (2, 0));
    assert_eq!(hub.requests()[0]["authorization"], "Bearer hf_test");
    let ranges: Vec<String> =
        storage.requests().iter().map(|headers| headers["range"].clone()).collect();
    assert_eq!(ranges, ["bytes=0-0", "bytes=10-"], "the download resumes behind the redirect");
}

#[test]
fn the_login_of_the_hub_tools_is_used_where_no_variable_names_a_token() {
    let hub = Server::start(|_, headers| part(TINY, &hex(TINY), headers));
    let folder = folder_of(&hub);
    std::fs::write(folder.dir.path().join("token"), "hf_login\n").unwrap();
    assert_eq!(folder.pull().0, Some(0));
    assert_eq!(hub.requests()[0]["authorization"], "Bearer hf_login");
}

#[test]
fn a_server_that_ignores_ranges_sends_the_whole_file_again() {
    let hub = Server::start(|_, _| {
        let head = format!("200 OK\r\ncontent-length: {}\r\netag: \"v1\"\r\n", TINY.len());
        (head, TINY.to_vec())
    });
    let folder = folder_of(&hub);
    leave(&folder, "v1", b"GGUF of another time");
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(std::fs::read(folder.hub_file()).unwrap(), TINY);
}

#[test]
fn a_server_that_fails_for_a_moment_is_asked_again() {
    let hub = Server::start(|number, headers| match number {
        1 | 2 => ("503 Service Unavailable\r\ncontent-length: 0\r\n".to_owned(), Vec::new()),
        _ => part(TINY, "v1", headers),
    });
    let folder = folder_of(&hub);
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(hub.requests().len(), 4);
}

#[test]
fn a_file_that_changed_on_the_hub_is_not_joined_with_its_old_beginning() {
    let hub = Server::start(|_, headers| part(TINY, "v2", headers));
    let folder = folder_of(&hub);
    leave(&folder, "v1", b"GGUF of another time");
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(std::fs::read(folder.hub_file()).unwrap(), TINY);
    assert_eq!(folder.files().len(), 1);
}

#[test]
fn bytes_that_do_not_match_the_hubs_own_digest_are_refused() {
    let hub = Server::start(|_, headers| part(TINY, &hex(b"another file"), headers));
    let folder = folder_of(&hub);
    let (code, shown) = folder.pull();
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains(&format!("expected {}", hex(b"another file"))), "{shown}");
    assert!(!folder.hub_file().exists() && folder.files().is_empty());
}

#[test]
fn an_endless_redirect_and_a_reply_without_etag_are_errors() {
    let around = Server::start(|_, _| {
        (
            "307 Temporary Redirect\r\nlocation: /again\r\ncontent-length: 0\r\n".to_owned(),
            Vec::new(),
        )
    });
    let (code, shown) = folder_of(&around).pull();
    assert!(code == Some(1) && shown.contains("redirects"), "{shown}");
    assert_eq!(around.requests().len(), 11);

    let nameless =
        Server::start(|_, _| ("200 OK\r\ncontent-length: 4\r\n".to_owned(), b"GGUF".to_vec()));
    let (code, shown) = folder_of(&nameless).pull();
    assert!(code == Some(1) && shown.contains("ETag"), "{shown}");
}
