//! Whether a request asks to stay on this machine, in whatever form it says so. Pure.
//!
//! Privacy fails closed: each occurrence counts, near misses of the name count, and anything but
//! `false` means yes. What this file overlooks goes to third parties.

use std::fmt;

use axum::http::HeaderMap;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Depth at which a body's members are looked at: those of `wattgate` in a misplaced `extra_body`.
const DEPTH: u32 = 3;

/// Members of a body that hold options of ours, or are put there by mistake.
const HOLDERS: [&str; 5] = ["wattgate", "xwattgate", "extrabody", "extraheaders", "metadata"];

/// Whether any of several headers says so.
pub(super) fn in_headers(headers: &HeaderMap) -> bool {
    // Most names need no second look.
    let near = headers.iter().filter(|(name, _)| name.as_str().contains("local"));
    let mut near = near.filter(|(name, _)| says_local(&letters(name.as_str())));
    near.any(|(_, value)| !value.as_bytes().eq_ignore_ascii_case(b"false"))
}

/// Whether the body, a JSON object, says so in any of its members. False for other bodies, which
/// are refused anyway.
pub(super) fn in_body(body: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(body).is_ok_and(|body| in_object(body.get(), DEPTH))
}

/// Whether `value` is an object that says so, or one that cannot be read.
fn in_object(value: &str, depth: u32) -> bool {
    if !value.starts_with('{') {
        return false;
    }
    let mut json = serde_json::Deserializer::from_str(value);
    json.deserialize_map(Members { depth }).unwrap_or(true)
}

/// Names of headers and members in one spelling: letters only, without case.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn says_local(letters: &str) -> bool {
    letters.ends_with("localonly")
        || (letters.starts_with("xwattgate") && letters.contains("local"))
}

/// Reads all members of an object, also those that stand there twice.
struct Members {
    depth: u32,
}

impl<'de> Visitor<'de> for Members {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut local = false;
        while let Some(name) = members.next_key::<String>()? {
            let name = letters(&name);
            if says_local(&name) {
                local |= !is_false(members.next_value::<&RawValue>()?);
            } else if self.depth > 0 && HOLDERS.contains(&name.as_str()) {
                local |= in_object(members.next_value::<&RawValue>()?.get(), self.depth - 1);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(local)
    }
}

/// `false`, or its name: values of metadata are texts.
fn is_false(value: &RawValue) -> bool {
    let text = value.get();
    text == "false" || text.trim_matches('"').trim().eq_ignore_ascii_case("false")
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_says_so_by_any_member_in_any_form() {
        for body in [
            r#"{"wattgate":{"local_only":true}}"#,
            r#"{"wattgate":{"local_only":true},"wattgate":{}}"#,
            r#"{"wattgate":{"local_only":true},"wattgate":{"local_only":false}}"#,
            r#"{"wattgate":{"local_only":false},"wattgate":{"local_only":true}}"#,
            r#"{"wattgate":{"local_only":true,"local_only":false}}"#,
            r#"{"wattgate":{"local_only":null}}"#,
            r#"{"wattgate":{"local_only":0}}"#,
            r#"{"wattgate":{"local_only":"no"}}"#,
            r#"{"wattgate":{"local_only":[false]}}"#,
            r#"{"\u0077attgate":{"\u006cocal_only":true}}"#,
            r#"{"wattgate":{"localOnly":true}}"#,
            r#"{"wattgate_local_only":true}"#,
            r#"{"local_only":true}"#,
            r#"{"x-wattgate-local-only":"true"}"#,
            r#"{"extra_body":{"wattgate":{"local_only":true}}}"#,
            r#"{"extra_headers":{"x-wattgate-local-only":"true"}}"#,
            r#"{"metadata":{"local_only":"true"}}"#,
        ] {
            assert!(in_body(body.as_bytes()), "{body}");
        }
        for body in [
            "{}",
            r#"{"wattgate":{"local_only":false}}"#,
            r#"{"wattgate":{"local_only":"False "}}"#,
            r#"{"wattgate":null}"#,
            r#"{"messages":[{"role":"user","content":"local_only: true"}],"local":true}"#,
            r#"{"metadata":{"note":"local_only"}}"#,
            "[]",
            "{",
        ] {
            assert!(!in_body(body.as_bytes()), "{body}");
        }
    }

    /// A spelling of the header's name that proxies and people make of it.
    fn name() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "x-wattgate-local-only",
            "X-Wattgate-Local-Only",
            "x_wattgate_local_only",
            "x-wattgate-localonly",
            "wattgate-local-only",
            "x-local-only",
            "x-wattgate-local",
        ])
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::sample::select(vec!["false", "False", "FALSE"])
                .prop_map(|v| v.as_bytes().to_vec()),
            prop::sample::select(vec![
                "true",
                "",
                "0",
                "no",
                "off",
                "false, true",
                "false;q=1",
                "\"false\""
            ])
            .prop_map(|v| v.as_bytes().to_vec()),
            prop::collection::vec(0x80_u8.., 0..4),
        ]
    }

    /// A member that speaks of the matter, and whether it leaves no doubt.
    fn member() -> impl Strategy<Value = (String, bool)> {
        let key =
            prop::sample::select(vec!["local_only", "localOnly", "LOCAL-ONLY", "\\u006cocal_only"]);
        let value = prop::sample::select(vec![
            "false",
            "true",
            "null",
            "0",
            "\"false\"",
            "\"no\"",
            "[]",
            "{}",
        ]);
        let around =
            prop::sample::select(vec!["", "wattgate", "extra_body", "metadata", "\\u0077attgate"]);
        (key, value, around).prop_map(|(key, value, around)| {
            let own = format!("\"{key}\":{value}");
            let member = if around.is_empty() { own } else { format!("\"{around}\":{{{own}}}") };
            (member, value == "false" || value == "\"false\"")
        })
    }

    proptest! {
        #[test]
        fn of_any_headers_one_that_is_not_false_is_enough(
            pairs in prop::collection::vec((name(), value()), 0..5),
        ) {
            let mut headers = HeaderMap::new();
            headers.insert("x-wattgate-floor", HeaderValue::from_static("0.5"));
            for (name, value) in &pairs {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_bytes(value).unwrap());
            }
            let doubt = pairs.iter().any(|(_, value)| !value.eq_ignore_ascii_case(b"false"));
            prop_assert_eq!(in_headers(&headers), doubt, "{:?}", headers);
        }

        #[test]
        fn of_any_members_one_that_is_not_false_is_enough(
            members in prop::collection::vec(member(), 0..5), at in 0_usize..6,
        ) {
            let mut texts: Vec<&str> = members.iter().map(|(text, _)| &**text).collect();
            texts.insert(at.min(texts.len()), r#""messages":[{"content":"x"}]"#);
            let body = format!("{{{}}}", texts.join(","));
            let doubt = members.iter().any(|(_, sure)| !sure);
            prop_assert_eq!(in_body(body.as_bytes()), doubt, "{}", body);
        }
    }
}
