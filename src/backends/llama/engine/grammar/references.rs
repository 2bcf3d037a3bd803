//! References of a schema: where each `$ref` leads.
//!
//! Pure. Reads JSON pointers with their escapes, `$anchor`, and the document's own `$id`s; nothing
//! outside of the schema is ever fetched.

use std::collections::HashMap;

use serde_json::Value;

/// Most bare references followed in a row: some are cyclic.
const STEPS: u8 = 64;

/// The places of one schema that have a name.
pub(super) struct References<'s> {
    root: &'s Value,
    /// The `$id` of the schema itself.
    base: &'s str,
    /// Subschemas by their absolute `$id`, and by `#` and their anchor.
    named: HashMap<String, &'s Value>,
}

impl<'s> References<'s> {
    pub(super) fn of(root: &'s Value) -> Self {
        let base = text(root, "$id").unwrap_or_default();
        let mut references = Self { root, base, named: HashMap::new() };
        references.collect(root);
        references
    }

    /// Names may also stand where no schema is, as in a `const`: harmless, as nothing refers to
    /// them there.
    fn collect(&mut self, value: &'s Value) {
        match value {
            Value::Object(fields) => {
                for anchor in
                    ["$anchor", "$dynamicAnchor"].iter().filter_map(|key| text(value, key))
                {
                    self.named.entry(format!("#{anchor}")).or_insert(value);
                }
                for id in ["$id", "id"].iter().filter_map(|key| text(value, key)) {
                    // Before draft 6, an `id` of a fragment was an anchor.
                    let name =
                        if id.starts_with('#') { id.to_owned() } else { absolute(self.base, id) };
                    self.named.entry(name.trim_end_matches('#').to_owned()).or_insert(value);
                }
                fields.values().for_each(|inner| self.collect(inner));
            }
            Value::Array(values) => values.iter().for_each(|inner| self.collect(inner)),
            _ => {}
        }
    }

    /// The schema behind a reference.
    pub(super) fn find(&self, reference: &str) -> Option<&'s Value> {
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let document = match document {
            "" => self.root,
            _ => self.named.get(absolute(self.base, document).as_str())?,
        };
        let fragment = decoded(fragment);
        match fragment.as_str() {
            // `#/` is the root to some generators.
            "" | "/" => Some(document),
            pointer if pointer.starts_with('/') => document.pointer(pointer),
            anchor => self.named.get(&format!("#{anchor}")).copied(),
        }
    }

    /// The schema itself, behind references that have nothing beside them.
    pub(super) fn behind(&self, mut schema: &'s Value) -> &'s Value {
        for _ in 0..STEPS {
            let bare = schema.as_object().filter(|fields| fields.len() == 1);
            let found = bare.and_then(|_| text(schema, "$ref")).and_then(|to| self.find(to));
            let Some(found) = found else { break };
            schema = found;
        }
        schema
    }
}

fn text<'s>(schema: &'s Value, key: &str) -> Option<&'s str> {
    schema.get(key).and_then(Value::as_str)
}

/// An identifier relative to a base, as far as schemas use it.
fn absolute(base: &str, id: &str) -> String {
    let scheme = base.find("://").map(|at| at + 3);
    match scheme {
        _ if id.contains("://") || id.starts_with("urn:") => id.to_owned(),
        Some(authority) if id.starts_with('/') => {
            let end = base[authority..].find('/').map_or(base.len(), |at| authority + at);
            format!("{}{id}", &base[..end])
        }
        Some(authority) => {
            let folder = base[authority..].rfind('/').map_or(base.len(), |at| authority + at);
            format!("{}/{id}", &base[..folder])
        }
        None => id.to_owned(),
    }
}

/// A fragment without its percent-encoding.
fn decoded(fragment: &str) -> String {
    if !fragment.contains('%') {
        return fragment.to_owned();
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(fragment.len()), fragment.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = hex.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = code.filter(|_| first == b'%') {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_a_place_is_read() {
        let root = json!({
            "$id": "https://example.com/schemas/root.json",
            "$defs": {
                "a/b": {"const": 1},
                "c~d": {"const": 2},
                "e f": {"const": 3},
                "named": {"$anchor": "here", "const": 4},
                "other": {"$id": "item.json", "const": 5, "$defs": {"in": {"const": 6}}},
                "old": {"id": "#there", "const": 7},
            },
        });
        let references = References::of(&root);
        for (reference, found) in [
            ("#/$defs/a~1b", 1),
            ("#/$defs/a%2Fb", 0),
            ("#/$defs/c~0d", 2),
            ("#/%24defs/e%20f", 3),
            ("#/$defs/e f", 3),
            ("#here", 4),
            ("item.json", 5),
            ("https://example.com/schemas/item.json", 5),
            ("/schemas/item.json", 5),
            ("item.json#/$defs/in", 6),
            ("https://example.com/schemas/root.json#here", 4),
            ("#there", 7),
            ("#/$defs/none", 0),
            ("#nowhere", 0),
            ("https://example.com/other.json", 0),
        ] {
            let value = references.find(reference).map(|schema| schema["const"].clone());
            assert_eq!(value.unwrap_or(json!(0)), json!(found), "{reference}");
        }
        for whole in ["#", "", "#/", "https://example.com/schemas/root.json", "root.json#"] {
            assert_eq!(references.find(whole), Some(&root), "{whole}");
        }
    }

    #[test]
    fn a_circle_of_references_ends() {
        let root = json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
        let references = References::of(&root);
        assert!(references.behind(&root["$defs"]["a"]).is_object());
    }
}
