//! The body that goes upstream: the client's own bytes with the few fields changed that must be.
//!
//! Knows only the top level of the object; what it does not know it copies byte for byte.

use indexmap::IndexMap;
use serde_json::value::{RawValue, to_raw_value};

/// The top level of a JSON object, in the order written, values untouched.
type Fields<'a> = IndexMap<String, &'a RawValue>;

/// Rewrites a request for an upstream that calls the model `model`.
///
/// Drops our own `wattgate` field; when `streams`, forces `stream_options.include_usage`, so that energy and cost are
/// always known.
pub(super) fn rewrite(body: &[u8], model: &str, streams: bool) -> serde_json::Result<Vec<u8>> {
    let mut fields: Fields = serde_json::from_slice(body)?;
    let model = to_raw_value(model)?;
    fields.insert("model".to_owned(), &model);
    fields.shift_remove("wattgate");
    let stream_options;
    if streams {
        stream_options = with_usage(fields.get("stream_options").copied())?;
        fields.insert("stream_options".to_owned(), &stream_options);
    }
    serde_json::to_vec(&fields)
}

fn with_usage(stream_options: Option<&RawValue>) -> serde_json::Result<Box<RawValue>> {
    let yes = to_raw_value(&true)?;
    let given: Option<Fields> = match stream_options {
        Some(options) => serde_json::from_str(options.get())?,
        None => None,
    };
    let mut options = given.unwrap_or_default();
    options.insert("include_usage".to_owned(), &yes);
    to_raw_value(&options)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn rewritten(body: &str, streams: bool) -> String {
        String::from_utf8(rewrite(body.as_bytes(), "gpt-x", streams).unwrap()).unwrap()
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
    fn what_is_no_object_is_refused() {
        assert!(rewrite(b"[1]", "gpt-x", false).is_err());
        assert!(rewrite(b"{\"model\":", "gpt-x", true).is_err());
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
