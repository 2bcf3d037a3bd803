//! Laws about who may use whom: module order, cycles, the engine process, HTTP, unsafe code.

use crate::graph;
use crate::source::Source;

/// Top-level modules: each may use only what is left of it.
pub const LAYERS: [&str; 24] = [
    "units",
    "validate",
    "plot",
    "page",
    "files",
    "locality",
    "shares",
    "offload",
    "openai",
    "telemetry",
    "net",
    "energy",
    "models",
    "backends",
    "routing",
    "traffic",
    "serving",
    "http",
    "replay",
    "train",
    "measure",
    "config",
    "app",
    "cli",
];

/// Pairs that the order alone would allow but the design forbids: (user, used).
const BANNED: [(&str, &str); 10] = [
    ("routing", "backends"),
    ("routing", "models"),
    ("replay", "serving"),
    ("replay", "http"),
    ("replay", "backends"),
    ("train", "serving"),
    ("train", "http"),
    ("measure", "serving"),
    ("measure", "http"),
    ("measure", "backends"),
];

/// Crates with a home: only files below these paths may name them.
const HOMES: [(&[&str], &[&str]); 3] = [
    (
        &["llama_cpp_2", "llama_cpp_sys_2", "llguidance", "minijinja", "minijinja_contrib"],
        &["src/backends/llama/engine"],
    ),
    (&["axum", "tower", "tower_http"], &["src/http"]),
    (
        // The server, and the client of the cloud backend.
        &["http", "http_body_util", "hyper", "hyper_util"],
        &["src/http", "src/backends/cloud/plain", "src/backends/cloud/transport.rs"],
    ),
];

/// A room, and the only files outside of it that may use it.
const ROOMS: [(&str, &[&str]); 1] = [
    // The engine process is entered by one command; the gateway process speaks to it over `wire`.
    ("src/backends/llama/engine", &["src/cli/engine.rs"]),
];

/// Where unsafe code may be: calls into llama.cpp, and what llama.cpp's computing threads call.
pub const UNSAFE_HOMES: [&str; 2] =
    ["src/backends/llama/engine/kernels", "src/backends/llama/engine/mmap.rs"];

/// Files in cycles that are left from before cycles were forbidden. May only fall.
pub const FILES_IN_CYCLES_MAX: usize = 0;

/// Uses of a module that comes later, or that the design forbids.
pub fn out_of_order(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources {
        let top = source.top();
        let Some(own) = LAYERS.iter().position(|layer| top.as_deref() == Some(layer)) else {
            continue;
        };
        for used in named_modules(source) {
            let path = &source.path;
            match LAYERS.iter().position(|layer| *layer == used) {
                Some(rank) if rank > own => {
                    problems.push(format!("{path} uses {used}, which comes after it"));
                }
                Some(_) if BANNED.contains(&(LAYERS[own], used)) => {
                    problems.push(format!("{path} uses {used}, which the design forbids"));
                }
                Some(_) => {}
                None => problems
                    .push(format!("{path}: write `crate::<module>::…`, not `crate::{used}`")),
            }
        }
    }
    problems
}

/// Top-level modules named as `crate::<module>`.
fn named_modules(source: &Source) -> Vec<&str> {
    let tokens = source.tokens();
    let crates = tokens.windows(3).filter(|window| window[0] == "crate" && window[1] == "::");
    crates.map(|window| window[2]).collect()
}

/// Module declarations of `lib.rs` that differ from [`LAYERS`].
pub fn undeclared(lib: &Source) -> Vec<String> {
    let declared: Vec<&str> = lib
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    if declared == LAYERS { Vec::new() } else { vec![format!("{declared:?} is not {LAYERS:?}")] }
}

/// Cycles between files, and how many files are in one.
pub fn cycles(sources: &[Source]) -> (Vec<String>, usize) {
    let cycles = graph::cycles(sources);
    let files = cycles.iter().map(Vec::len).sum();
    (cycles.iter().map(|files| format!("cycle: {}", files.join(", "))).collect(), files)
}

/// Crates named outside of their home.
pub fn strangers(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources {
        let tokens = source.tokens();
        let named = |name: &str| {
            tokens.windows(2).enumerate().any(|(at, pair)| {
                pair[0] == name && pair[1] == "::" && (at == 0 || tokens[at - 1] != "::")
            })
        };
        for (crates, homes) in HOMES {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            for name in crates.iter().filter(|name| named(name)) {
                problems.push(format!("{} names {name}; only {homes:?} may", source.path));
            }
        }
    }
    problems
}

/// Uses of a room's files from outside, but for its entries.
pub fn intruders(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for (file, used) in graph::uses(sources) {
        for (room, entries) in ROOMS.iter().filter(|(_, entries)| !entries.contains(&file)) {
            let inside = |file: &str| below(file, room) || file == format!("{room}.rs");
            for used in used.iter().filter(|used| inside(used) && !inside(file)) {
                problems.push(format!("{file} uses {used}; only {entries:?} may"));
            }
        }
    }
    problems
}

/// Unsafe code outside of its home.
pub fn unsafe_code(sources: &[Source]) -> Vec<String> {
    let outside = sources
        .iter()
        .filter(|source| !UNSAFE_HOMES.iter().any(|home| below(&source.path, home)))
        .filter(|source| {
            let tokens = source.tokens();
            tokens.windows(2).any(|pair| pair[0] == "unsafe" && ["{", "fn"].contains(&pair[1]))
        });
    outside.map(|source| format!("{} is not the place for unsafe code", source.path)).collect()
}

/// Paths in the constants above without a file.
pub fn dead_entries(sources: &[Source]) -> Vec<String> {
    let homes = HOMES.iter().flat_map(|(_, homes)| *homes);
    let rooms = ROOMS.iter().flat_map(|(room, entries)| entries.iter().chain([room]));
    let paths = UNSAFE_HOMES.iter().chain(homes).chain(rooms);
    let dead = paths.filter(|path| !sources.iter().any(|source| below(&source.path, path)));
    dead.map(|path| format!("no file is at {path}")).collect()
}

fn below(path: &str, home: &str) -> bool {
    path.strip_prefix(home).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Files named after nothing.
pub fn drawers(sources: &[Source]) -> Vec<String> {
    let drawers = ["util", "utils", "helpers", "common", "misc"];
    let named = sources.iter().filter(|source| {
        source.module().last().is_some_and(|name| drawers.contains(&name.as_str()))
    });
    named.map(|source| format!("{}: name the thing instead", source.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(law: impl Fn(&[Source]) -> Vec<String>, path: &str, text: &str) -> usize {
        law(&[Source::new(path, text)]).len()
    }

    #[test]
    fn a_use_of_a_later_or_banned_module_breaks_the_order() {
        assert_eq!(found(out_of_order, "src/routing/x.rs", "use crate::energy::E;"), 0);
        assert_eq!(found(out_of_order, "src/energy.rs", "use crate::routing::R;"), 1);
        assert_eq!(found(out_of_order, "src/routing/x.rs", "use crate::backends::B;"), 1);
        assert_eq!(found(out_of_order, "src/routing/x.rs", "use crate::Thing;"), 1);
    }

    #[test]
    fn a_module_without_a_layer_is_undeclared() {
        let list = |names: &[&str]| {
            names.iter().map(|name| ["pub mod ", name, ";\n"].concat()).collect::<Vec<_>>().concat()
        };
        assert!(undeclared(&Source::new("src/lib.rs", &list(&LAYERS))).is_empty());
        assert_eq!(undeclared(&Source::new("src/lib.rs", &list(&LAYERS[1..]))).len(), 1);
    }

    #[test]
    fn a_crate_is_named_in_its_home_only() {
        assert_eq!(found(strangers, "src/backends/llama/engine/x.rs", "use llama_cpp_2::X;"), 0);
        assert_eq!(found(strangers, "src/app.rs", "use llama_cpp_2::X;"), 1);
        assert_eq!(found(strangers, "src/routing/x.rs", "fn f() -> axum::Router {}"), 1);
        assert_eq!(found(strangers, "src/routing/x.rs", "fn f() { wattgate::http::start() }"), 0);
    }

    #[test]
    fn a_room_is_entered_by_its_entries_only() {
        let room = Source::new("src/backends/llama/engine/main.rs", "pub fn run() {}");
        let facade = Source::new("src/backends/llama.rs", "pub use engine::main::run;");
        let user = |path: &str| Source::new(path, "use crate::backends::llama::run;");
        let found = |user: Source| {
            intruders(&[
                Source::new("src/backends/llama/engine.rs", "pub mod main;"),
                Source::new(&room.path, &room.text),
                Source::new(&facade.path, &facade.text),
                user,
            ])
        };
        assert_eq!(found(user("src/cli/engine.rs")), [""; 0]);
        assert_eq!(found(user("src/serving/plan.rs")).len(), 1);
        assert_eq!(found(user("src/backends/llama/host/x.rs")).len(), 1);
        assert_eq!(found(user("src/backends/llama/engine/reader.rs")), [""; 0]);
    }

    #[test]
    fn unsafe_code_outside_of_its_home_is_found() {
        assert_eq!(found(unsafe_code, UNSAFE_HOMES[0], "fn f() { unsafe { g() } }"), 0);
        assert_eq!(found(unsafe_code, "src/app.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(found(unsafe_code, "src/app.rs", "// unsafe { }\n"), 0);
    }

    #[test]
    fn an_entry_without_a_file_is_dead() {
        let homes: usize = HOMES.iter().map(|(_, homes)| homes.len()).sum();
        let rooms: usize = ROOMS.iter().map(|(_, entries)| entries.len() + 1).sum();
        assert_eq!(dead_entries(&[]).len(), UNSAFE_HOMES.len() + homes + rooms);
    }

    #[test]
    fn a_file_named_after_nothing_is_a_drawer() {
        assert_eq!(found(drawers, "src/energy/util.rs", ""), 1);
        assert_eq!(found(drawers, "src/energy/utility.rs", ""), 0);
    }
}
