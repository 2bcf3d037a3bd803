//! JSON in which a key stands twice: the last one counts, as in nearly every reader of JSON. The
//! text without the others is what upstreams get, so that they read the request as it was decided
//! on. Pure.

use indexmap::IndexMap;
use serde_json::value::RawValue;

/// Depth to which keys are looked at: that of a call's function in a turn, and some more.
const DEPTH: u32 = 8;

/// `body` with the last value of each key only; `None` if it is not JSON.
pub(super) fn last_wins(body: &[u8]) -> Option<Vec<u8>> {
    let value: &RawValue = serde_json::from_slice(body).ok()?;
    let mut out = Vec::with_capacity(body.len());
    write(value.get(), DEPTH, &mut out)?;
    Some(out)
}

fn write(value: &str, depth: u32, out: &mut Vec<u8>) -> Option<()> {
    match value.as_bytes().first() {
        Some(b'{') if depth > 0 => {
            let fields: IndexMap<String, &RawValue> = serde_json::from_str(value).ok()?;
            out.push(b'{');
            for (place, (key, value)) in fields.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, key).ok()?;
                out.push(b':');
                write(value.get(), depth - 1, out)?;
            }
            out.push(b'}');
        }
        Some(b'[') if depth > 0 => {
            let items: Vec<&RawValue> = serde_json::from_str(value).ok()?;
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write(item.get(), depth - 1, out)?;
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(value.as_bytes()),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_keys_stays_and_the_rest_keeps_its_bytes() {
        let once =
            |body: &str| last_wins(body.as_bytes()).map(|out| String::from_utf8(out).unwrap());
        let body = r#"{"n":1,"a":[{"r":1.0,"r":2e0}],"n":12345678901234567890123,"\u006e":3}"#;
        assert_eq!(once(body).unwrap(), r#"{"n":3,"a":[{"r":2e0}]}"#);
        assert_eq!(once("{").as_deref(), None);
        let deep = "[".repeat(300) + &"]".repeat(300);
        assert_eq!(once(&deep), Some(deep));
    }
}
