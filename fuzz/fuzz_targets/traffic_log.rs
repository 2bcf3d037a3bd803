//! Traffic logs: whatever is in a file is read line by line, and what is a record can be replayed.

#![no_main]
#![cfg(fuzzing)]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wattgate::replay::Replay;
use wattgate::traffic::{Line, read_log};

/// One file a process, in memory where there is such a folder.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("wattgate-fuzz-{}.jsonl", std::process::id()))
});

fuzz_target!(|log: &[u8]| {
    std::fs::write(&*FILE, log).expect("the file is written");
    let mut replay = Replay::new(Vec::new());
    let lines = read_log(&FILE).expect("the file is there");
    for line in lines {
        match line.expect("the file is read") {
            Line::Record(record) => replay.add(&record),
            Line::Annotation(_) | Line::Torn | Line::Bad { .. } => {}
        }
    }
    assert!(!replay.report().to_string().is_empty());
});
