//! Bodies of requests: the edge's reader, routing's features, and both ways to a model. What the
//! edge takes reaches an upstream as valid JSON, and the engine as the same message.

#![no_main]
#![cfg(fuzzing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use wattgate::backends::cloud;
use wattgate::backends::llama::host;
use wattgate::backends::llama::wire::protocol::{ToEngine, decode, encode};
use wattgate::http::extract::body::{parse_chat, parse_completion, parse_embedding};
use wattgate::http::extract::options::{Asking, options};
use wattgate::http::layers::request_id::RequestId;
use wattgate::http::responses::chat::Earlier;
use wattgate::http::responses::store::{Store, StoreConfig};
use wattgate::http::{messages, responses};
use wattgate::openai::Request;
use wattgate::routing::Features;
use wattgate::shares::{Client, Share};
use wattgate::units::MonotonicNs;

fuzz_target!(|body: &[u8]| {
    for parse in [parse_chat, parse_completion, parse_embedding] {
        match parse(body) {
            Ok(request) => follow(request, body),
            Err(error) => drop(error.to_string()),
        }
    }
    let store = Store::new(StoreConfig::default(), Share::default());
    let earlier = Earlier { store: &store, owner: Client::default().into(), now: MonotonicNs(0) };
    match responses::chat::read_request(body, "r", earlier) {
        Ok(read) => follow(Request::Chat(read.request), &read.body),
        Err(error) => drop(error.to_string()),
    }
    match messages::chat::read_request(body) {
        Ok(read) => follow(Request::Chat(read.request), &read.body),
        Err(error) => drop(error.to_string()),
    }
});

fn follow(request: Request, body: &[u8]) {
    let _turns = request.messages();
    let asking = Asking { client: Client::default(), says_local: false, arrived: MonotonicNs(0) };
    let _options = options(&Default::default(), request.fields(), &RequestId("r".into()), asking);
    let features = Features::of(&request);
    let logged = serde_json::to_string(&features).expect("features are logged");
    assert_eq!(serde_json::from_str::<Features>(&logged).expect("and read again"), features);
    upstream(&request, body);
    if let Ok(message) = host::fuzzing::to_engine(Arc::new(request)) {
        let bytes = encode(&message).expect("a message is encoded");
        let decoded: ToEngine = decode(&bytes).expect("and decoded");
        assert_eq!(format!("{decoded:?}"), format!("{message:?}"));
    }
}

fn upstream(request: &Request, body: &[u8]) {
    for sent in cloud::fuzzing::rewritten(body, "its \"name\"", request.streams()) {
        // Raw values, since numbers may be larger than any of Rust's.
        let sent = std::str::from_utf8(&sent).expect("an upstream gets UTF-8");
        let sent: BTreeMap<String, &RawValue> = serde_json::from_str(sent).expect("and JSON");
        assert_eq!(sent["model"].get(), r#""its \"name\"""#);
        assert!(!sent.contains_key("wattgate"));
    }
}
