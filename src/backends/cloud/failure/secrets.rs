//! Keys in an upstream's message, which must not be repeated. Pure.

/// What stands for a key.
const MASK: &str = "[key]";

/// How keys begin at the services in use.
const PREFIXES: [&str; 14] = [
    "sk-", "sk_", "pk-", "gsk_", "xai-", "hf_", "nvapi-", "r8_", "AIza", "key-", "tgp_", "pplx-",
    "csk-", "fw_",
];

/// So many letters and digits in a row are as likely a key as anything; names have hyphens.
const LONG: usize = 24;

/// Masks every word that looks like a key, and the one after `Bearer`.
pub(super) fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut after_bearer) = (text, false);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if is_key(word) || (after_bearer && !word.is_empty()) {
            out.push_str(MASK);
        } else {
            out.push_str(word);
        }
        after_bearer = word.eq_ignore_ascii_case("bearer") || (after_bearer && word.is_empty());
        let next = after.chars().next().map_or(0, char::len_utf8);
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    out
}

fn is_key(word: &str) -> bool {
    let word = word.trim_matches(['.', '*']);
    let is_known =
        PREFIXES.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= 4));
    let mut runs = word.as_bytes().split(|byte| !byte.is_ascii_alphanumeric());
    let is_random = |run: &[u8]| {
        let has = |test: fn(&u8) -> bool| run.iter().any(test);
        run.len() >= LONG && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
    };
    is_known || runs.any(is_random)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '+' | '/' | '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_masked_and_words_are_not() {
        for (text, expected) in [
            ("Incorrect API key provided: sk-abc123.", "Incorrect API key provided: [key]"),
            ("key 'gsk_abcdef' is é", "key '[key]' is é"),
            ("you sent Bearer xyz now", "you sent Bearer [key] now"),
            ("bearer:  abc", "bearer:  [key]"),
            ("Key AIzaSyD12345 is wrong", "Key [key] is wrong"),
            ("id 0123456789abcdef0123456789abcdef", "id [key]"),
            (
                "sk- is no key, nor is task-force or a risk-averse one",
                "sk- is no key, nor is task-force or a risk-averse one",
            ),
            (
                "model meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo",
                "model meta-llama/Llama-3.2-11B-Vision-Instruct-Turbo",
            ),
            ("max_tokens is too large: 10000", "max_tokens is too large: 10000"),
            ("", ""),
        ] {
            assert_eq!(masked(text), expected);
        }
    }
}
