//! The architecture, as a test. Each law is a function over source files that returns what breaks
//! it, with a test of its own that it fails; here they meet the real files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop loudly")]
#![expect(unreachable_pub, reason = "`pub` marks what one module offers to the others")]

mod graph;
mod prose;
mod source;
mod structure;
mod unsafe_list;

use source::{sources, sources_below};

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Fails if more is left than `max`.
fn at_most(max: usize, left: usize, problems: &[String]) {
    assert!(left <= max, "{left} are left; {max} were\n{}", problems.join("\n"));
}

#[test]
fn modules_use_only_what_comes_before_them() {
    report(&structure::out_of_order(&sources()));
}

#[test]
fn the_module_list_is_the_order() {
    let sources = sources();
    let lib = sources.iter().find(|source| source.path == "src/lib.rs").unwrap();
    report(&structure::undeclared(lib));
}

#[test]
fn no_files_use_each_other_in_a_cycle() {
    let (cycles, files) = structure::cycles(&sources());
    at_most(structure::FILES_IN_CYCLES_MAX, files, &cycles);
}

#[test]
fn crates_with_a_home_are_named_nowhere_else() {
    report(&structure::strangers(&sources()));
}

#[test]
fn rooms_are_entered_by_their_entries_only() {
    report(&structure::intruders(&sources()));
}

#[test]
fn unsafe_code_has_its_places() {
    report(&structure::unsafe_code(&sources()));
}

/// `make unsafe-list` writes the list instead.
#[test]
fn the_list_of_unsafe_code_is_current() {
    let (list, missing) = unsafe_list::list(&sources());
    report(&missing);
    if std::env::var_os("WATTGATE_WRITE_UNSAFE_LIST").is_some() {
        return std::fs::write(unsafe_list::LIST, list).unwrap();
    }
    let kept = std::fs::read_to_string(unsafe_list::LIST).unwrap_or_default();
    assert!(kept == list, "{} is not current: run `make unsafe-list`", unsafe_list::LIST);
}

#[test]
fn every_path_in_the_laws_exists() {
    report(&structure::dead_entries(&sources()));
}

#[test]
fn no_file_is_a_drawer() {
    report(&structure::drawers(&sources()));
}

#[test]
fn every_file_has_a_header_and_a_limit() {
    report(&prose::shapeless(&sources()));
}

#[test]
fn pure_files_touch_nothing() {
    let sources = sources();
    report(&prose::impure(&sources));
    let pure = sources.iter().filter(|source| prose::is_pure(source)).count();
    assert!(pure >= prose::PURE_FILES_MIN, "only {pure} files claim to be pure");
}

#[test]
fn comments_name_components_and_not_people() {
    let vague = prose::vague_words(&sources_below(&["src", "tests"]));
    at_most(prose::VAGUE_WORDS_MAX, vague.len(), &vague);
}

#[test]
fn comments_are_wrapped() {
    let wide = prose::wide_comments(&sources_below(&["src", "tests"]));
    at_most(prose::WIDE_COMMENTS_MAX, wide.len(), &wide);
}
