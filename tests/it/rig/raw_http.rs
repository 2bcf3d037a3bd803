//! HTTP by hand, byte for byte, for clients that misbehave.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::app::PATIENCE;

/// A connection with the smallest receive buffer.
pub async fn connect(address: SocketAddr) -> TcpStream {
    connect_from(Ipv4Addr::LOCALHOST, address).await
}

/// The same from another address of this machine: to the gateway, another client.
pub async fn connect_from(own: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.bind(SocketAddr::from((own, 0))).unwrap();
    socket.connect(address).await.unwrap()
}

/// A connection on which `bytes` were sent.
pub async fn sent(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(address).await;
    stream.write_all(bytes).await.unwrap();
    stream
}

/// An HTTP/1.1 request with a JSON body; `headers` are whole lines.
pub fn post(path: &str, headers: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// Everything that comes until the gateway closes the connection.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let reading = async { while matches!(stream.read_buf(&mut all).await, Ok(1..)) {} };
    timeout(PATIENCE, reading).await.expect("the connection is closed");
    String::from_utf8_lossy(&all).into_owned()
}

/// Everything that comes until a text does.
pub async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&all).contains(wanted) {
            assert!(stream.read_buf(&mut all).await.unwrap() > 0, "{}", text(&all));
        }
    };
    let came = timeout(PATIENCE, reading).await.is_ok();
    assert!(came, "no {wanted} in {}", text(&all));
    text(&all)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until the gateway has closed the connection, whatever it says before.
pub async fn until_closed(mut stream: TcpStream) {
    read_to_end(&mut stream).await;
}

/// Whether nothing comes for this long, and the connection stays open.
pub async fn is_silent(stream: &mut TcpStream, time: Duration) -> bool {
    timeout(time, stream.read(&mut [0; 1])).await.is_err()
}

/// HTTP/2 (RFC 9113).
pub mod h2 {
    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub const PING: u8 = 6;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The start of a connection whose client takes no byte of a reply: its window is 0
    /// (`SETTINGS_INITIAL_WINDOW_SIZE`, 4).
    pub fn start_without_window() -> Vec<u8> {
        [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()
    }

    pub fn start() -> Vec<u8> {
        [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
    }

    /// A request; streams of clients have odd numbers.
    pub fn post(stream: u32, path: &str, body: &str) -> Vec<u8> {
        // HPACK (RFC 7541): `:method POST`, `:scheme http`, then `:path` and `:authority`.
        let length = u8::try_from(path.len()).unwrap();
        let head = [&[0x83, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1, b'x']].concat();
        let head = frame(HEADERS, END_HEADERS, stream, &head);
        [head, frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
    }

    /// The same with more headers, within a frame of 16 KiB.
    pub fn get_with(stream: u32, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
        let length = u8::try_from(path.len()).unwrap();
        let mut head = [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1, b'x']].concat();
        for (name, value) in fields {
            // A literal that is not indexed.
            head.push(0);
            for text in [name, value] {
                text_length(&mut head, text.len());
                head.extend_from_slice(text.as_bytes());
            }
        }
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
    }

    /// A length with a prefix of 7 bits (RFC 7541, 5.1).
    fn text_length(head: &mut Vec<u8>, length: usize) {
        let Some(mut rest) = length.checked_sub(127) else {
            return head.push(u8::try_from(length).unwrap());
        };
        head.push(127);
        while rest >= 128 {
            head.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        head.push(u8::try_from(rest).unwrap());
    }

    pub fn get(stream: u32, path: &str) -> Vec<u8> {
        let length = u8::try_from(path.len()).unwrap();
        let head = [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1, b'x']].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
    }
}
