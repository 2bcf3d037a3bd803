//! Streamed answers of upstreams: what is forwarded does not depend on where the stream is cut.

#![no_main]
#![cfg(fuzzing)]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wattgate::backends::cloud::fuzzing::{stream, stream_of_whole};
use wattgate::http::extract::body::{parse_chat, parse_completion};
use wattgate::openai::Request;
use wattgate_fuzz::pieces;

static REQUESTS: LazyLock<[Request; 3]> = LazyLock::new(|| {
    let one = br#"{"model":"m","messages":[{"role":"user","content":""}],"stream":true}"#;
    let two = br#"{"model":"m","messages":[{"role":"user","content":""}],"n":2,"stream":true,
        "stream_options":{"include_usage":true}}"#;
    let raw =
        br#"{"model":"m","prompt":"a","stream":true,"stream_options":{"include_usage":true}}"#;
    [parse_chat(one), parse_chat(two), parse_completion(raw)].map(|read| read.expect("a request"))
});

fuzz_target!(|answer: &[u8]| {
    for request in &*REQUESTS {
        let whole = stream([answer], request);
        assert_eq!(stream(answer.chunks(1), request), whole);
        assert_eq!(stream(pieces(answer), request), whole);
        let _anything = stream_of_whole(answer, request);
    }
});
