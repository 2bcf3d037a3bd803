//! The body that goes upstream: the client's own bytes with the few fields changed that must be.
//!
//! Knows only the top level of the object; what it does not know it copies byte for byte.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use indexmap::IndexMap;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

/// What happens to `stream_options`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamUsage {
    /// The answer is not streamed: they stay as they are.
    NotStreamed,
    /// `include_usage` is forced, so that energy and cost are always known.
    Asked,
    /// The upstream refuses them: they are left out.
    Withheld,
}

/// Rewrites a request for an upstream that calls the model `model`.
///
/// Drops our own `wattgate` field.
pub(super) fn rewrite(body: &[u8], model: &str, usage: StreamUsage) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let fields = json.deserialize_map(FieldsVisitor)?;
    json.end()?;
    let mut edits = Vec::with_capacity(3);
    let mut added = Vec::new();
    put(body, fields.model, "model", serde_json::to_string(model)?, &mut edits, &mut added);
    if let Some(own) = fields.wattgate {
        edits.push((member(body, own), String::new()));
    }
    match (usage, fields.stream_options) {
        (StreamUsage::Asked, given) => {
            put(body, given, "stream_options", with_usage(given)?, &mut edits, &mut added);
        }
        (StreamUsage::Withheld, Some(given)) => {
            // On its own: two members side by side would both claim the comma between them.
            let others = edited(body, &[(member(body, given), String::new())], &[]);
            return rewrite(&others, model, StreamUsage::NotStreamed);
        }
        (StreamUsage::Withheld, None) | (StreamUsage::NotStreamed, _) => {}
    }
    edits.sort_unstable_by_key(|(range, _)| range.start);
    Ok(edited(body, &edits, &added))
}

/// Replaces the value of a field, or adds the field.
fn put(
    body: &[u8],
    old: Option<&RawValue>,
    name: &str,
    value: String,
    edits: &mut Vec<(Range<usize>, String)>,
    added: &mut Vec<String>,
) {
    match old {
        Some(old) => edits.push((place(body, old), value)),
        None => added.push(format!("\"{name}\":{value}")),
    }
}

/// The body with the edits made, in order, and members added before its last brace.
fn edited(body: &[u8], edits: &[(Range<usize>, String)], added: &[String]) -> Vec<u8> {
    let new: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + new + 64);
    let mut copied = 0;
    for (range, text) in edits {
        out.extend_from_slice(&body[copied..range.start]);
        out.extend_from_slice(text.as_bytes());
        copied = range.end;
    }
    out.extend_from_slice(&body[copied..]);
    if !added.is_empty() {
        out.truncate(out.trim_ascii_end().len().saturating_sub(1));
        for member in added {
            if !out.trim_ascii_end().ends_with(b"{") {
                out.push(b',');
            }
            out.extend_from_slice(member.as_bytes());
        }
        out.push(b'}');
    }
    out
}

/// Where a value stands that was read from `body`.
fn place(body: &[u8], value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr() as usize - body.as_ptr() as usize;
    start..start + value.get().len()
}

/// Where the member of a value stands, with one of the commas around it.
fn member(body: &[u8], value: &RawValue) -> Range<usize> {
    let Range { start, end } = place(body, value);
    let before_colon = body[..start].trim_ascii_end().strip_suffix(b":").unwrap_or_default();
    // The key holds no quotation mark, however it is escaped.
    let key = before_colon.trim_ascii_end().strip_suffix(b"\"").unwrap_or_default();
    let start = key.iter().rposition(|byte| *byte == b'"').unwrap_or(0);
    let after = body[end..].trim_ascii_start();
    if let Some(after) = after.strip_prefix(b",") {
        return start..body.len() - after.len();
    }
    let before = body[..start].trim_ascii_end();
    before.strip_suffix(b",").map_or(start, <[u8]>::len)..end
}

/// The fields that are changed.
#[derive(Default)]
struct Fields<'a> {
    model: Option<&'a RawValue>,
    wattgate: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let field = match &*key {
                "model" => &mut fields.model,
                "wattgate" => &mut fields.wattgate,
                "stream_options" => &mut fields.stream_options,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if field.replace(map.next_value()?).is_some() {
                return Err(de::Error::custom(format_args!("duplicate field `{key}`")));
            }
        }
        Ok(fields)
    }
}

/// A key, borrowed unless it is escaped.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

fn with_usage(stream_options: Option<&RawValue>) -> serde_json::Result<String> {
    let Some(options) = stream_options else { return Ok(r#"{"include_usage":true}"#.to_owned()) };
    let yes = to_raw_value(&true)?;
    let given: Option<IndexMap<String, &RawValue>> = serde_json::from_str(options.get())?;
    let mut options = given.unwrap_or_default();
    options.insert("include_usage".to_owned(), &yes);
    serde_json::to_string(&options)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn rewritten(body: &str, streams: bool) -> String {
        let usage = if streams { StreamUsage::Asked } else { StreamUsage::NotStreamed };
        String::from_utf8(rewrite(body.as_bytes(), "gpt-x", usage).unwrap()).unwrap()
    }

    #[test]
    fn only_the_model_changes_and_the_rest_keeps_its_bytes() {
        let body = r#"{"temperature":1.0e0,"model":"auto","wattgate":{"floor":0.5},"x_new":[1,{"a" : 2}],"big":12345678901234567890123}"#;
        assert_eq!(
            rewritten(body, false),
            r#"{"temperature":1.0e0,"model":"gpt-x","x_new":[1,{"a" : 2}],"big":12345678901234567890123}"#
        );
    }

    #[test]
    fn a_streamed_request_always_asks_for_usage_and_keeps_its_other_options() {
        for options in ["null", "{}", r#"{"include_usage":false}"#] {
            let body = format!(r#"{{"model":"auto","stream":true,"stream_options":{options}}}"#);
            assert_eq!(
                rewritten(&body, true),
                r#"{"model":"gpt-x","stream":true,"stream_options":{"include_usage":true}}"#
            );
        }
        assert_eq!(
            rewritten(r#"{"model":"auto","stream_options":{"include_obfuscation":false}}"#, true),
            r#"{"model":"gpt-x","stream_options":{"include_obfuscation":false,"include_usage":true}}"#
        );
        assert_eq!(
            rewritten(r#"{"model":"auto"}"#, true),
            r#"{"model":"gpt-x","stream_options":{"include_usage":true}}"#
        );
    }

    #[test]
    fn our_own_field_goes_with_one_comma_wherever_it_is() {
        for (body, expected) in [
            (r#"{"wattgate":{"a":[1]} , "model":"auto"}"#, r#"{ "model":"gpt-x"}"#),
            (r#"{ "model" : "auto" , "\u0077attgate" : {} }"#, r#"{ "model" : "gpt-x"  }"#),
            (
                r#"{"model":"auto","wattgate":1,"x":"wattgate"}"#,
                r#"{"model":"gpt-x","x":"wattgate"}"#,
            ),
            (r#"{"wattgate":{}}"#, r#"{"model":"gpt-x"}"#),
            ("{ }", r#"{ "model":"gpt-x"}"#),
        ] {
            assert_eq!(rewritten(body, false), expected);
        }
        assert!(
            rewrite(br#"{"model":"a","model":"b"}"#, "gpt-x", StreamUsage::NotStreamed).is_err()
        );
    }

    #[test]
    fn options_that_the_upstream_refuses_are_left_out() {
        for body in [
            r#"{"model":"a","stream_options":{},"wattgate":{},"x":1}"#,
            r#"{"model":"a","x":1,"stream_options":{},"wattgate":{}}"#,
            r#"{"stream_options":{},"model":"a","x":1}"#,
            r#"{"wattgate":{},"stream_options":{},"model":"a","x":1}"#,
            r#"{"model":"a","x":1}"#,
        ] {
            let sent = rewrite(body.as_bytes(), "gpt-x", StreamUsage::Withheld).unwrap();
            let sent: Value = serde_json::from_slice(&sent).unwrap_or_else(|_| panic!("{body}"));
            assert_eq!(sent, json!({"model": "gpt-x", "x": 1}), "{body}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(rewrite(b"[1]", "gpt-x", StreamUsage::NotStreamed).is_err());
        assert!(rewrite(b"{\"model\":", "gpt-x", StreamUsage::Asked).is_err());
    }

    proptest! {
        #[test]
        fn every_unknown_field_arrives(
            fields in proptest::collection::btree_map("[a-z\"\\\\é]{1,6}", any::<(i64, String)>(), 0..8),
        ) {
            let mut body = json!({"model": "auto"});
            for (name, value) in &fields {
                body[format!("x_{name}")] = json!(value);
            }
            let sent: Value = serde_json::from_str(&rewritten(&body.to_string(), false)).unwrap();
            body["model"] = json!("gpt-x");
            prop_assert_eq!(sent, body);
        }
    }
}
