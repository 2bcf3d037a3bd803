//! Answer shapes in llguidance's Lark syntax, with schemas by reference.
//!
//! Pure. Schemas are not part of the text, so that no error message can quote one.

use std::fmt::Write;

use super::shape::{AnswerShape, Part, Schema};

/// Grammar name of the regular expression with this index.
pub(crate) fn regex_name(place: usize) -> String {
    format!("regex{place}")
}

/// Grammar name of the schema with this index.
pub(crate) fn schema_name(place: usize) -> String {
    format!("schema{place}")
}

/// The shape's grammar and the schemas it refers to; it also refers to the shape's regular
/// expressions. `control` returns the ids of tags that are control tokens.
pub(crate) fn lark(
    form: &AnswerShape,
    control: impl Fn(&str) -> Option<u32>,
) -> (String, Vec<&Schema>) {
    let mut terms = Terms { schemas: Vec::new(), regexes: 0, ends: Vec::new(), control };
    let sequences: Vec<String> = form.0.iter().map(|parts| terms.sequence(parts)).collect();
    let mut text = format!("start: {}\n", sequences.join("\n  | "));
    for (place, end) in terms.ends.iter().enumerate() {
        // The text ends at the first terminator. Writing to a string cannot fail.
        let _ = writeln!(text, "until{place}[suffix={}]: /(?s:.*)/", quoted(end));
    }
    text.push_str("BLANK: /[ \\n]{1,4}/\nID: /[a-zA-Z0-9]{9}/\n");
    (text, terms.schemas)
}

struct Terms<'f, C> {
    schemas: Vec<&'f Schema>,
    regexes: usize,
    /// Terminators of free texts.
    ends: Vec<&'static str>,
    control: C,
}

impl<'f, C: Fn(&str) -> Option<u32>> Terms<'f, C> {
    fn sequence(&mut self, parts: &'f [Part]) -> String {
        let terms: Vec<String> = parts.iter().map(|part| self.term(part)).collect();
        terms.join(" ")
    }

    fn term(&mut self, part: &'f Part) -> String {
        match part {
            Part::Tag(tag) => {
                (self.control)(tag).map_or_else(|| quoted(tag), |id| format!("<[{id}]>"))
            }
            Part::Text(text) => quoted(text),
            Part::Blank => "BLANK?".to_owned(),
            Part::Id => "ID".to_owned(),
            Part::Json(schema) => {
                self.schemas.push(schema);
                format!("@{}", schema_name(self.schemas.len() - 1))
            }
            Part::Regex(_) => {
                self.regexes += 1;
                format!("@{}", regex_name(self.regexes - 1))
            }
            Part::Until(end) => {
                let known = self.ends.iter().position(|known| known == end);
                let place = known.unwrap_or(self.ends.len());
                if known.is_none() {
                    self.ends.push(end);
                }
                format!("until{place}")
            }
            Part::OneOf(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                format!("({})", texts.join(" | "))
            }
            Part::Maybe(parts) => format!("({})?", self.sequence(parts)),
        }
    }
}

/// Lark's strings are JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_become_terms_and_control_tokens_their_ids() {
        let schema = Schema { json: json!({"secret": 1}), lenient: false };
        let call = vec![
            Part::Tag("[T]"),
            Part::Blank,
            Part::Text("{\"a\":\n".into()),
            Part::Json(schema.clone()),
        ];
        let maybe = Part::Maybe(vec![Part::Tag("[T]"), Part::Id]);
        let texts = Part::OneOf(vec!["a".into(), "\"".into()]);
        let free = || Part::Until("</p>");
        let form = AnswerShape(vec![
            call,
            vec![Part::Tag("<t>"), Part::Json(schema)],
            vec![maybe, texts, free(), free()],
        ]);
        let (text, schemas) = lark(&form, |tag| (tag == "[T]").then_some(5));
        assert_eq!(
            text,
            "start: <[5]> BLANK? \"{\\\"a\\\":\\n\" @schema0\n  | \"<t>\" @schema1\n  \
             | (<[5]> ID)? (\"a\" | \"\\\"\") until0 until0\n\
             until0[suffix=\"</p>\"]: /(?s:.*)/\nBLANK: /[ \\n]{1,4}/\nID: /[a-zA-Z0-9]{9}/\n"
        );
        assert_eq!(schemas.len(), 2);
    }
}
