//! Headers of model files.

#![no_main]
#![cfg(fuzzing)]

use libfuzzer_sys::fuzz_target;
use wattgate::backends::llama::memory::gguf;

fuzz_target!(|file: &[u8]| {
    let _either = gguf::parse(file, file.len() as u64);
});
