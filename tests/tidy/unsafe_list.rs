//! The list of all unsafe code with the reasons that its comments give, as `docs/unsafe.md`.

use std::fmt::Write;

use crate::source::Source;

/// Where the list is kept.
pub const LIST: &str = "docs/unsafe.md";

const HEAD: &str = "# Unsafe code

Every place in `src/` that the compiler does not check, with the reason that stands beside it. Made by `make unsafe-list`; the tests
fail if it is not current. All of it is in the engine process, which a fault ends without the gateway. The engine also links llama.cpp,
which is C++: see the [threat model](security.md).
";

/// How far above the word its comment may be, in lines: a statement may begin before its block.
const REACH_LINES: usize = 4;

const FUNCTION: &str = "function";
const DECLARATIONS: &str = "declarations of C functions";

/// One place.
struct Place {
    function: String,
    kind: &'static str,
    reason: String,
}

/// The whole list, and the places without a reason.
pub fn list(sources: &[Source]) -> (String, Vec<String>) {
    let (mut text, mut missing) = (HEAD.to_owned(), Vec::new());
    let found: Vec<(&str, Vec<Place>)> =
        sources.iter().map(|source| (source.path.as_str(), places(source))).collect();
    // A method is sound for the reason that its trait gives, which may be in another file.
    let of_traits: Vec<(String, String)> = (found.iter().flat_map(|(_, places)| places))
        .filter(|place| place.kind == FUNCTION && !place.reason.is_empty())
        .map(|place| (place.function.clone(), place.reason.clone()))
        .collect();
    for (path, places) in found.into_iter().filter(|(_, places)| !places.is_empty()) {
        let _ =
            writeln!(text, "\n## `{path}`\n\n| in | what | why it is sound |\n| --- | --- | --- |");
        for Place { function, kind, mut reason } in places {
            let declared = of_traits.iter().find(|(name, _)| *name == function);
            if let Some((_, given)) = declared.filter(|_| kind == FUNCTION && reason.is_empty()) {
                reason.clone_from(given);
            }
            if reason.is_empty() {
                missing.push(format!("{path}: {kind} in {function} has no reason"));
            }
            let _ = writeln!(text, "| `{function}` | {kind} | {reason} |");
        }
    }
    (text, missing)
}

fn places(source: &Source) -> Vec<Place> {
    let mut places = Vec::new();
    let mut function = "the file".to_owned();
    let lines: Vec<&str> = source.code.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let named = line.split_once("fn ").map(|(_, rest)| rest.split(['(', '<']).next());
        if let Some(name) = named.flatten().filter(|name| !name.trim().is_empty()) {
            name.trim().clone_into(&mut function);
        }
        let Some((_, after)) = line.split_once("unsafe") else { continue };
        let after: String = after.split_whitespace().collect();
        let kind = match after.as_str() {
            after if after.starts_with('(') => "attribute",
            after if after.starts_with("impl") => "implementation",
            // The name of the ABI is a string, which is blank here.
            after if after.starts_with("extern{") => DECLARATIONS,
            after if after.starts_with('{') => "block",
            after if after.starts_with("fn(") || after.starts_with("externfn(") => continue,
            after if after.starts_with("fn") || after.starts_with("externfn") => FUNCTION,
            _ => continue,
        };
        let reason = match kind {
            DECLARATIONS => declared(&lines[at + 1..]),
            _ => reason(source, at + 1),
        };
        // An attribute stands before what it is of.
        let next = lines.get(at + 1).and_then(|next| next.split_once("fn "));
        let function = match next.filter(|_| kind == "attribute") {
            Some((_, rest)) => rest.split('(').next().unwrap_or_default().to_owned(),
            None if kind == DECLARATIONS => "the file".to_owned(),
            None => function.clone(),
        };
        places.push(Place { function, kind, reason });
    }
    places
}

/// The functions that a block declares up to its end.
fn declared(lines: &[&str]) -> String {
    let block = lines.iter().take_while(|line| !line.starts_with('}'));
    let names = block.filter_map(|line| line.split_once("fn ")?.1.split('(').next());
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    format!("{}: each call is a block of its own", names.join(", "))
}

/// The comment that ends closest above the line: what follows `SAFETY:` or `# Safety` in it.
fn reason(source: &Source, line: usize) -> String {
    let comment = |line: usize| source.comments.iter().find(|(at, _)| *at == line);
    let reach = line.saturating_sub(REACH_LINES)..line;
    let Some(last) = reach.rev().find(|line| comment(*line).is_some()) else {
        return String::new();
    };
    let first = (1..=last).rev().take_while(|line| comment(*line).is_some()).last().unwrap_or(last);
    let words: Vec<&str> =
        (first..=last).filter_map(|line| Some(comment(line)?.1.as_str())).collect();
    let text = words.join(" ");
    let marks = ["SAFETY:", "# Safety"];
    let said = marks.iter().find_map(|mark| Some(text.split_once(mark)?.1)).unwrap_or(&text);
    said.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_place_is_listed_with_its_reason() {
        let text = "
/// Reads.
///
/// # Safety
///
/// `place` is valid.
unsafe fn read(place: *const u8) -> u8 {
    // SAFETY: by the contract
    // of `read`.
    let value = unsafe { *place };
    value
}
/// Called by C.
#[unsafe(no_mangle)]
extern \"C\" fn entry() {}
unsafe extern \"C\" {
    fn other();
}
trait Reads {
    /// # Safety
    ///
    /// The CPU can.
    unsafe fn fast(&self);
}
impl Reads for u8 {
    const A: u8 = 0;
    const B: u8 = 0;

    #[inline]
    unsafe fn fast(&self) {}
}
struct Table { call: unsafe extern \"C\" fn(u8) }
#[cfg(test)]
mod tests { fn f() { unsafe { g() } } }
";
        let (list, missing) = list(&[Source::new("src/x.rs", text)]);
        let rows: Vec<&str> = list.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(
            rows,
            [
                "| `read` | function | `place` is valid. |",
                "| `read` | block | by the contract of `read`. |",
                "| `entry` | attribute | Called by C. |",
                "| `the file` | declarations of C functions | `other`: each call is a block of its own |",
                "| `fast` | function | The CPU can. |",
                "| `fast` | function | The CPU can. |",
            ]
        );
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn a_place_without_a_reason_is_found() {
        let (_, missing) = list(&[Source::new("src/x.rs", "\n\n\n\nfn f() { unsafe { g() } }\n")]);
        assert_eq!(missing.len(), 1);
    }
}
