//! The architecture, as a test: modules use only what stands before them, files say what they are for and stay
//! small, and the pure parts stay pure.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop loudly")]

use std::fs;
use std::path::{Path, PathBuf};

/// DESIGN order: each may use only what is left of it.
const LAYERS: [&str; 16] = [
    "units",
    "validate",
    "openai",
    "telemetry",
    "energy",
    "models",
    "backends",
    "routing",
    "traffic",
    "gateway",
    "replay",
    "train",
    "measure",
    "config",
    "app",
    "cli",
];

/// Pairs that the order alone would allow but the design forbids: (user, used).
const BANNED: [(&str, &str); 7] = [
    ("routing", "backends"),
    ("routing", "models"),
    ("replay", "gateway"),
    ("replay", "backends"),
    ("train", "gateway"),
    ("measure", "gateway"),
    ("measure", "backends"),
];

/// Files whose functions are pure: no clock, no I/O, no logging, no runtime.
const PURE: [&str; 32] = [
    "src/validate.rs",
    "src/routing/cascade.rs",
    "src/routing/signals.rs",
    "src/traffic/feedback.rs",
    "src/backends/llama/confidence.rs",
    "src/routing/candidate.rs",
    "src/routing/objective.rs",
    "src/routing/rule.rs",
    "src/routing/policy.rs",
    "src/routing/task.rs",
    "src/routing/length.rs",
    "src/routing/latency.rs",
    "src/routing/session.rs",
    "src/routing/exclusion.rs",
    "src/routing/reason.rs",
    "src/routing/decide.rs",
    "src/routing/features.rs",
    "src/routing/text.rs",
    "src/energy/ledger.rs",
    "src/energy/split.rs",
    "src/backends/llama/scheduler.rs",
    "src/backends/llama/drafting.rs",
    "src/backends/llama/eviction.rs",
    "src/backends/llama/break_even.rs",
    "src/backends/llama/footprint.rs",
    "src/backends/llama/threads.rs",
    "src/energy/loads.rs",
    "src/measure/check.rs",
    "src/measure/fit.rs",
    "src/measure/least_squares.rs",
    "src/measure/stats.rs",
    "src/measure/summary.rs",
];
const IMPURE: [&str; 8] = [
    "tokio::",
    "tracing::",
    "std::fs",
    "std::net",
    "Instant::now",
    "SystemTime::now",
    "MonotonicNs::now",
    "std::env",
];

/// Where unsafe code may be: calls into llama.cpp, and what llama.cpp's computing threads call.
const LLAMA_EDGE: [&str; 5] = [
    "src/backends/llama/barrier.rs",
    "src/backends/llama/kernels",
    "src/backends/llama/kernels.rs",
    "src/backends/llama/mapped.rs",
    "src/backends/llama/sys.rs",
];

const LINES_MAX: usize = 600;

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The top-level module the file belongs to; none for `lib.rs` and `main.rs`.
    fn layer(&self) -> Option<usize> {
        let below_src = self.path.strip_prefix("src").ok()?;
        let top = below_src.components().next()?.as_os_str().to_str()?;
        let name = top.strip_suffix(".rs").unwrap_or(top);
        LAYERS.iter().position(|layer| *layer == name)
    }

    /// Code lines with what follows `//` cut off: prose may name any module.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.text.lines().map(|line| line.split("//").next().unwrap_or_default())
    }

    /// Top-level modules named as `crate::<module>`.
    fn uses(&self) -> Vec<&str> {
        let names = self.code().flat_map(|line| line.split("crate::").skip(1));
        names
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
            .collect()
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 20, "the test must run from the crate's root");
    found
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let mut problems = Vec::new();
    for source in sources() {
        let Some(own) = source.layer() else { continue };
        for used in source.uses() {
            let place = source.path.display();
            match LAYERS.iter().position(|layer| *layer == used) {
                Some(rank) if rank > own => {
                    problems.push(format!("{place} uses {used}, which comes after it"));
                }
                Some(_) if BANNED.contains(&(LAYERS[own], used)) => {
                    problems.push(format!("{place} uses {used}, which the design forbids"));
                }
                Some(_) => {}
                None => problems
                    .push(format!("{place}: write `crate::<module>::…`, not `crate::{used}`")),
            }
        }
    }
    report(&problems);
}

#[test]
fn the_module_list_is_the_order() {
    let lib = fs::read_to_string("src/lib.rs").unwrap();
    let declared: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, LAYERS);
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    let mut problems = Vec::new();
    for source in sources() {
        let place = source.path.display();
        if !source.text.starts_with("//! ") {
            problems.push(format!("{place} does not open with `//!`"));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            problems.push(format!("{place} has {lines} lines; {LINES_MAX} are the limit"));
        }
    }
    report(&problems);
}

#[test]
fn pure_files_touch_nothing() {
    let mut problems = Vec::new();
    for path in PURE {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let source = Source { path: PathBuf::from(path), text };
        for line in source.code().take_while(|line| !line.contains("#[cfg(test)]")) {
            for impure in IMPURE.iter().filter(|impure| line.contains(**impure)) {
                problems.push(format!("{path} is pure, but says `{impure}`"));
            }
        }
    }
    report(&problems);
}

#[test]
fn unsafe_lives_at_the_llama_edge_only() {
    let at_edge = |path: &Path| LLAMA_EDGE.iter().any(|edge| path.starts_with(edge));
    let outside = sources().into_iter().filter(|source| !at_edge(&source.path));
    let problems: Vec<String> = outside
        .filter(|source| {
            source.code().any(|line| line.contains("unsafe {") || line.contains("unsafe fn"))
        })
        .map(|source| format!("{} is not the place for unsafe code", source.path.display()))
        .collect();
    report(&problems);
}

#[test]
fn no_module_is_a_drawer() {
    let drawers = ["util", "utils", "helpers", "common", "misc"];
    let problems: Vec<String> = sources()
        .into_iter()
        .filter(|source| {
            source.path.file_stem().is_some_and(|stem| drawers.iter().any(|drawer| stem == *drawer))
        })
        .map(|source| format!("{}: name the thing instead", source.path.display()))
        .collect();
    report(&problems);
}
