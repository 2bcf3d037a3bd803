//! Calls of a name, a tag and one JSON object, `name[ARGS]{…}`: Mistral from v11 on.
//!
//! Pure. Skips an id between name and arguments: clients get one that is unique among all calls.

use super::expected::Read;
use super::scan::JsonScan;
use crate::backends::llama::engine::tool_format::{ARGS, CALL_ID};

#[derive(Debug, Default)]
pub(super) struct NamedCall {
    /// Of the arguments, once they have begun.
    scan: JsonScan,
}

impl NamedCall {
    pub(super) fn feed(&mut self, char: char, read: &str, known: &[String]) -> Read {
        if self.scan.depth == 0 {
            return match head(read, known) {
                Head::Whole(name) => {
                    self.scan.feed(char);
                    Read::Begun { name: name.to_owned(), arguments: char.to_string() }
                }
                Head::Part => Read::More,
                Head::Wrong => Read::NoCall,
            };
        }
        self.scan.feed(char);
        let arguments = char.to_string();
        if self.scan.depth > 0 {
            Read::Arguments(arguments)
        } else {
            Read::Done { arguments, left: false }
        }
    }
}

/// The text before the arguments, including their opening brace.
#[derive(Debug, PartialEq)]
enum Head<'r> {
    Part,
    Whole(&'r str),
    Wrong,
}

fn head<'r>(read: &'r str, known: &[String]) -> Head<'r> {
    let read = read.trim_start();
    let Some(end) = read.find('[') else {
        let begins = known.iter().any(|name| name.starts_with(read.trim_end()));
        return if begins { Head::Part } else { Head::Wrong };
    };
    let (name, rest) = (read[..end].trim_end(), &read[end..]);
    if !known.iter().any(|known| known == name) {
        return Head::Wrong;
    }
    match after(rest, ARGS) {
        Some(arguments) => opened(arguments, name),
        None if ARGS.starts_with(rest) || CALL_ID.starts_with(rest) => Head::Part,
        None => after(rest, CALL_ID).map_or(Head::Wrong, |id| {
            let Some(end) = id.find('[') else { return Head::Part };
            match after(&id[end..], ARGS) {
                Some(arguments) => opened(arguments, name),
                None if ARGS.starts_with(&id[end..]) => Head::Part,
                None => Head::Wrong,
            }
        }),
    }
}

fn after<'r>(text: &'r str, tag: &str) -> Option<&'r str> {
    text.strip_prefix(tag)
}

/// Whether the arguments begin as they must.
fn opened<'r>(arguments: &str, name: &'r str) -> Head<'r> {
    match arguments.trim_start() {
        "" => Head::Part,
        "{" => Head::Whole(name),
        _ => Head::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_far_as_it_goes() {
        let known = ["get".to_owned(), "get_time".to_owned()];
        for part in [
            "",
            " ",
            "ge",
            "get",
            "get_t",
            "get[",
            "get[ARGS",
            "get[ARGS]",
            "get_time[CALL_ID]a1[AR",
        ] {
            assert_eq!(head(part, &known), Head::Part, "{part}");
        }
        for (whole, name) in
            [("get[ARGS]{", "get"), (" get_time[CALL_ID]a1b2c3d4e[ARGS] {", "get_time")]
        {
            assert_eq!(head(whole, &known), Head::Whole(name), "{whole}");
        }
        for wrong in ["set", "ge[", "get[X", "get[ARGS]7", "get[CALL_ID]a[B", "[{\"name\""] {
            assert_eq!(head(wrong, &known), Head::Wrong, "{wrong}");
        }
    }
}
