//! Configuration files: every problem can be shown.

#![no_main]
#![cfg(fuzzing)]

use libfuzzer_sys::fuzz_target;
use wattgate::config;

fuzz_target!(|text: &str| {
    if let Err(problems) = config::parse(text, "wattgate.toml") {
        assert!(!problems.to_string().is_empty());
    }
});
