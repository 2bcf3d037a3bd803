//! The receipt as one more field, `wattgate`, of a JSON object. Pure.

use bytes::{BufMut, BytesMut};
use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::traffic::Receipt;

/// The field.
const FIELD: &str = "wattgate";

/// Appends `object` (the text of a JSON object) with the receipt as one more field, its other bytes
/// untouched. A receipt that an upstream gateway wrote gives way.
pub fn write_with_receipt(out: &mut BytesMut, object: &[u8], receipt: &Receipt) {
    let without = without_receipt(object);
    let object = without.as_deref().unwrap_or(object);
    let fields = object.trim_ascii_end();
    let fields = fields.strip_suffix(b"}").unwrap_or(fields).trim_ascii_end();
    out.put_slice(fields);
    if !fields.ends_with(b"{") {
        out.put_slice(b",");
    }
    out.put_slice(b"\"wattgate\":");
    let _ = serde_json::to_writer((&mut *out).writer(), receipt);
    out.put_slice(b"}");
}

/// The object without its field `wattgate`; `None` if it has none.
fn without_receipt(object: &[u8]) -> Option<Vec<u8>> {
    // Nearly no object has it, and most need no second look.
    let maybe = |word: &[u8]| memchr::memmem::find(object, word).is_some();
    if !maybe(FIELD.as_bytes()) && !maybe(b"\\u00") {
        return None;
    }
    let mut fields: IndexMap<String, &RawValue> = serde_json::from_slice(object).ok()?;
    fields.shift_remove(FIELD)?;
    serde_json::to_vec(&fields).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One of a request that nothing is known of.
    pub(in crate::http) fn receipt() -> Receipt {
        Receipt {
            request_id: "r".into(),
            policy: "default".into(),
            route: None,
            model: None,
            reason: "because".into(),
            candidates: [].into(),
            attempts: vec![],
            energy: None,
            carbon: None,
            electricity_dollars: None,
        }
    }

    #[test]
    fn the_receipt_joins_any_object() {
        for object in ["{}", "{ }", r#"{"a":1}"#, "{\"a\":1 }\n"] {
            let mut joined = BytesMut::new();
            write_with_receipt(&mut joined, object.as_bytes(), &receipt());
            let value: serde_json::Value = serde_json::from_slice(&joined).unwrap();
            assert_eq!(value["wattgate"]["request_id"], "r", "{object}");
        }
    }

    #[test]
    fn a_receipt_of_another_gateway_gives_way() {
        for object in [
            r#"{"a":1.0e0,"wattgate":{"request_id":"theirs"},"b":[{"wattgate":1}]}"#,
            r#"{"\u0077attgate":1,"a":1.0e0,"b":[{"wattgate":1}],"wattgate":2}"#,
        ] {
            let mut joined = BytesMut::new();
            write_with_receipt(&mut joined, object.as_bytes(), &receipt());
            let text = std::str::from_utf8(&joined).unwrap();
            assert!(text.starts_with(r#"{"a":1.0e0,"b":[{"wattgate":1}],"wattgate":{"#), "{text}");
            assert_eq!(text.matches("request_id").count(), 1, "{text}");
        }
    }
}
