//! Failure messages for the log, without what they quote of the request. Pure.
//!
//! Upstreams and chat templates repeat parts of a request in their complaints. The client may read
//! them; the log must not hold prompts.

use std::collections::{HashMap, HashSet};

use memchr::memmem;
use serde_json::Value;

/// Bytes that a message and a text of the request share by chance at most: longer runs are quotes.
const CHANCE_BYTES: usize = 12;

/// Shortest text of the request that is removed where a message repeats it whole.
const WHOLE_BYTES_MIN: usize = 4;

/// Longest body that is searched; the message of a longer one is dropped.
const BODY_BYTES_MAX: usize = 256 << 10;

const REMOVED: &str = "[…]";

/// `message` without the runs that it shares with a text of the request `body`; `None` if nothing
/// is known of the body's texts, so that anything could be a quote.
pub fn without_quotes(message: &str, body: &[u8]) -> Option<String> {
    if body.len() > BODY_BYTES_MAX {
        return None;
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    let mut quotes = Quotes::new(message);
    each_text(&body, &mut |text| quotes.mark(text));
    Some(rest(message, &quotes.quoted))
}

/// Calls `f` with every text of `value`, names of members included.
fn each_text(value: &Value, f: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => f(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, f)),
        Value::Object(members) => {
            for (name, member) in members {
                // Shorter ones are names of the API, which say what is wrong.
                if name.len() > CHANCE_BYTES {
                    f(name);
                }
                each_text(member, f);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What of a message stands in the request, too; found in one pass over each text.
struct Quotes<'m> {
    message: &'m [u8],
    /// Where each run of [`CHANCE_BYTES`] stands that is not marked yet.
    runs: HashMap<&'m [u8], Vec<usize>>,
    /// Those that were looked for.
    short_texts: HashSet<Vec<u8>>,
    quoted: Vec<bool>,
}

impl<'m> Quotes<'m> {
    fn new(message: &'m str) -> Self {
        let message = message.as_bytes();
        let mut runs: HashMap<_, Vec<usize>> = HashMap::new();
        for (start, run) in message.windows(CHANCE_BYTES).enumerate() {
            runs.entry(run).or_default().push(start);
        }
        Self { message, runs, short_texts: HashSet::new(), quoted: vec![false; message.len()] }
    }

    /// Marks the bytes that quote `text`.
    fn mark(&mut self, text: &str) {
        let text = text.trim().as_bytes();
        if text.len() < WHOLE_BYTES_MIN {
            return;
        }
        if text.len() < CHANCE_BYTES {
            return self.mark_short(text);
        }
        for run in text.windows(CHANCE_BYTES) {
            for start in self.runs.remove(run).unwrap_or_default() {
                self.quoted[start..start + CHANCE_BYTES].fill(true);
            }
        }
    }

    /// Marks every place of a text that is shorter than a run, once for equal texts.
    fn mark_short(&mut self, text: &[u8]) {
        if !self.short_texts.insert(text.to_owned()) {
            return;
        }
        let mut from = 0;
        while let Some(at) = memmem::find(&self.message[from..], text) {
            self.quoted[from + at..from + at + text.len()].fill(true);
            from += at + 1;
        }
    }
}

/// The characters of which no byte is quoted, and one mark for each run of others.
fn rest(message: &str, quoted: &[bool]) -> String {
    let mut rest = String::with_capacity(message.len());
    let mut in_quote = false;
    for (start, character) in message.char_indices() {
        let is_quoted = quoted[start..start + character.len_utf8()].contains(&true);
        if !is_quoted {
            rest.push(character);
        } else if !in_quote {
            rest.push_str(REMOVED);
        }
        in_quote = is_quoted;
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn logged(message: &str, prompt: &str) -> Option<String> {
        let body = json!({"model": "auto", "messages": [{"role": "user", "content": prompt}]});
        without_quotes(message, body.to_string().as_bytes())
    }

    #[test]
    fn the_reason_stays_and_the_quote_goes() {
        let cases = [
            ("temperature must be at most 2", "hello", "temperature must be at most 2"),
            (
                "unsupported value 'my secret plan é': use text",
                "my secret plan é",
                "unsupported value '[…]': use text",
            ),
            (
                "flagged: the secret is 42 and more",
                "I said the secret is 42 and moreover",
                "flagged:[…]",
            ),
            ("no: 1234", "1234", "no: […]"),
            ("this is hidden", "hi", "this is hidden"),
        ];
        for (message, prompt, expected) in cases {
            assert_eq!(logged(message, prompt).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_message_about_an_unreadable_or_huge_body_is_dropped() {
        assert_eq!(without_quotes("no", b"{"), None);
        assert_eq!(without_quotes("no", &vec![b' '; BODY_BYTES_MAX + 1]), None);
    }

    proptest! {
        #[test]
        fn no_long_run_of_the_prompt_is_logged(
            prompt in "\\PC{13,60}", before in "\\PC{0,20}", after in "\\PC{0,20}",
            cut in 0_usize..40,
        ) {
            let quote: String = prompt.chars().skip(cut).collect();
            let text = logged(&format!("{before}{quote}{after}"), &prompt).unwrap();
            for part in prompt.trim().as_bytes().windows(CHANCE_BYTES) {
                prop_assert!(memchr::memmem::find(text.as_bytes(), part).is_none(), "{text}");
            }
        }
    }
}
