//! The receipt as one more field, `wattgate`, of a JSON object. Pure.

use bytes::{BufMut, BytesMut};

use crate::traffic::Receipt;

/// Appends `object` (the text of a JSON object) with the receipt as one more field, its other bytes
/// untouched.
pub fn write_with_receipt(out: &mut BytesMut, object: &[u8], receipt: &Receipt) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
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
}
