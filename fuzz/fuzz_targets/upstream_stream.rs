//! Streamed answers of upstreams: what is forwarded does not depend on where the stream is cut.

#![no_main]
#![cfg(fuzzing)]

use libfuzzer_sys::fuzz_target;
use wattgate::backends::cloud::fuzzing::stream;
use wattgate_fuzz::pieces;

fuzz_target!(|answer: &[u8]| {
    for choices in [1, 2] {
        let whole = stream([answer], choices);
        assert_eq!(stream(answer.chunks(1), choices), whole);
        assert_eq!(stream(pieces(answer), choices), whole);
    }
});
