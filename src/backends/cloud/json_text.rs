//! JSON objects as text: their members are looked at and put together anew without a change to the
//! values. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in order, duplicates included.
pub(super) type Members<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// `None` if `json` is no object.
pub(super) fn members(json: &str) -> Option<Members<'_>> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let members = reader.deserialize_map(MembersVisitor).ok()?;
    reader.end().ok()?;
    Some(members)
}

/// The items of a list; `None` if `json` is no list.
pub(super) fn items(json: &str) -> Option<Vec<&str>> {
    let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

/// The value of a member: of the last one, as most readers take it, where there are several. A
/// `null` is as good as none.
pub(super) fn member<'a>(members: &Members<'a>, name: &str) -> Option<&'a str> {
    let (_, value) = members.iter().rev().find(|(key, _)| key == name)?;
    (*value != "null").then_some(*value)
}

/// The object with these members.
pub(super) fn object<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from("{");
    for (key, value) in members {
        if out.len() > 1 {
            out.push(',');
        }
        // A string: cannot fail.
        out.push_str(&serde_json::to_string(key).unwrap_or_default());
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    out
}

/// The list of these items.
pub(super) fn list(items: &[String]) -> String {
    format!("[{}]", items.join(","))
}

/// What Python's JSON writer puts where a number is not finite becomes `null`; `None` if there is
/// nothing of that kind.
pub(super) fn finite(json: &str) -> Option<String> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut out = String::with_capacity(json.len());
    let (mut rest, mut changed) = (json, false);
    while let Some(next) = rest.find(['"', '-', 'I', 'N']) {
        out.push_str(&rest[..next]);
        rest = &rest[next..];
        let length = if rest.starts_with('"') {
            string_length(rest)
        } else if let Some(word) = WORDS.iter().find(|word| rest.starts_with(**word)) {
            changed = true;
            out.push_str("null");
            rest = &rest[word.len()..];
            continue;
        } else {
            1
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// Bytes of the string that `text` begins with, its quotation marks included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (place, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::with_capacity(8);
        while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
            members.push((key, value.get()));
        }
        Ok(members)
    }
}

/// A key, borrowed unless it is escaped.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_text_and_the_last_of_several_counts() {
        let json = r#"{ "a" : 1.0e0, "b":[1, 2], "\u0061":null, "c":null, "b":{"d" : 2} }"#;
        let found = members(json).unwrap();
        assert_eq!(member(&found, "b"), Some(r#"{"d" : 2}"#));
        assert_eq!(
            (member(&found, "a"), member(&found, "c"), member(&found, "x")),
            (None, None, None)
        );
        let again = object(found.iter().map(|(key, value)| (&**key, *value)));
        assert_eq!(again, r#"{"a":1.0e0,"b":[1, 2],"a":null,"c":null,"b":{"d" : 2}}"#);
        assert_eq!(items("[1, {\"a\":[2]} ]"), Some(vec!["1", "{\"a\":[2]}"]));
        for other in ["[1]", "7", "{", "{}x", ""] {
            assert_eq!(members(other), None, "{other}");
        }
    }

    #[test]
    fn only_numbers_that_are_not_finite_are_replaced() {
        let json = r#"{"NaN":"-Infinity \" NaN","a":[NaN,-Infinity,Infinity,-1,"é"],"N":1}"#;
        let expected = r#"{"NaN":"-Infinity \" NaN","a":[null,null,null,-1,"é"],"N":1}"#;
        assert_eq!(finite(json).as_deref(), Some(expected));
        assert_eq!(finite(r#"{"a":"NaN","b":"unfinished NaN"#), None);
    }
}
