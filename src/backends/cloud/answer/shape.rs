//! The shape of a chunk of text. A later chunk that differs from it in nothing but the text means
//! the same, and need not be parsed. Pure.

/// A chunk without its text.
#[derive(Debug)]
pub(super) struct Shape {
    /// Up to the quotation mark that opens the text.
    before: Box<[u8]>,
    /// From the one that closes it.
    after: Box<[u8]>,
}

impl Shape {
    /// The shape of `json`; `text` is the JSON string within it that may differ.
    pub(super) fn of(json: &str, text: &str) -> Self {
        let start = text.as_ptr() as usize - json.as_ptr() as usize;
        let (before, after) = (start + 1, start + text.len() - 1);
        let json = json.as_bytes();
        Self { before: json[..before].into(), after: json[after..].into() }
    }

    /// Whether `data` has this shape and a text that is not empty and needs no second look: UTF-8
    /// without escapes.
    pub(super) fn fits(&self, data: &[u8]) -> bool {
        let text = data.strip_prefix(&*self.before);
        let text = text.and_then(|text| text.strip_suffix(&*self.after));
        text.is_some_and(|text| {
            let is_plain = |byte: &u8| *byte >= b' ' && !matches!(byte, b'"' | b'\\');
            !text.is_empty() && text.iter().all(is_plain) && std::str::from_utf8(text).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const JSON: &str = r#"{"a":"","b":[{"c":"text","d":"\""}]}"#;

    fn shape() -> Shape {
        Shape::of(JSON, &JSON[JSON.find("\"text\"").unwrap()..][..6])
    }

    #[test]
    fn only_another_plain_text_fits() {
        let with = |text: &str| JSON.replacen("text", text, 1);
        for text in ["text", "x", "é 什么", "a'b}{][,:"] {
            assert!(shape().fits(with(text).as_bytes()), "{text}");
        }
        for text in ["", "a\"", "\",\"d\":\"", "\\n", "\\u0041", "a\nb", "a\u{0}"] {
            assert!(!shape().fits(with(text).as_bytes()), "{text}");
        }
        for other in
            [&JSON[1..], &JSON[..JSON.len() - 1], r#"{"a":"","b":[{"c":"","d":"\""}]}"#, ""]
        {
            assert!(!shape().fits(other.as_bytes()), "{other}");
        }
        let broken =
            [b"{\"a\":\"\",\"b\":[{\"c\":\"\xff", &JSON.as_bytes()[JSON.len() - 14..]].concat();
        assert!(!shape().fits(&broken));
    }

    proptest! {
        #[test]
        fn what_fits_is_the_same_object_with_another_text(text in "[\"\\\\a,:{}é\\n]{0,6}") {
            let json = JSON.replacen("text", &text, 1);
            if shape().fits(json.as_bytes()) {
                let mut value: Value = serde_json::from_str(&json).unwrap();
                prop_assert_eq!(value["b"][0]["c"].take(), text);
                let mut same: Value = serde_json::from_str(JSON).unwrap();
                same["b"][0]["c"].take();
                prop_assert_eq!(value, same);
            }
        }
    }
}
