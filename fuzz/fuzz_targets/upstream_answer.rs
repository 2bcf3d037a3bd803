//! Whole answers of upstreams, and their error bodies with any status.

#![no_main]
#![cfg(fuzzing)]

use libfuzzer_sys::fuzz_target;
use wattgate::backends::cloud::fuzzing::{refused, whole};

/// Most characters of an error: an upstream's words are cut.
const LONGEST: usize = 4_000;

fuzz_target!(|body: &[u8]| {
    if let Err(kind) = whole(body) {
        assert!(kind.to_string().chars().count() < LONGEST, "{kind}");
    }
    let header = &body[..body.len().min(40)];
    for status in [400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 503, 529] {
        let kind = refused(status, header, body);
        assert!(kind.to_string().chars().count() < LONGEST, "{kind}");
    }
});
