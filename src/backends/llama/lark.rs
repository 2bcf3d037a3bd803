//! A form in Lark's syntax, as llguidance reads it, its schemas by reference.
//!
//! Pure. Schemas stay out of the text, so that no error message can quote one.

use super::form::{Form, Part, Schema};

/// Name of the grammar of the schema in this place.
pub fn schema_name(place: usize) -> String {
    format!("schema{place}")
}

/// The form's grammar and the schemas it refers to. `control` knows the ids of tags that are control tokens.
pub fn lark(form: &Form, control: impl Fn(&str) -> Option<u32>) -> (String, Vec<&Schema>) {
    let mut schemas = Vec::new();
    let mut sequences = Vec::with_capacity(form.0.len());
    for parts in &form.0 {
        let mut terms = Vec::with_capacity(parts.len());
        for part in parts {
            terms.push(match part {
                Part::Tag(tag) => {
                    control(tag).map_or_else(|| quoted(tag), |id| format!("<[{id}]>"))
                }
                Part::Text(text) => quoted(text),
                Part::Blank => "BLANK?".to_owned(),
                Part::Json(schema) => {
                    schemas.push(schema);
                    format!("@{}", schema_name(schemas.len() - 1))
                }
            });
        }
        sequences.push(terms.join(" "));
    }
    (format!("start: {}\nBLANK: /[ \\n]{{1,4}}/\n", sequences.join("\n  | ")), schemas)
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
        let form = Form(vec![call, vec![Part::Tag("<t>"), Part::Json(schema)]]);
        let (text, schemas) = lark(&form, |tag| (tag == "[T]").then_some(5));
        assert_eq!(
            text,
            "start: <[5]> BLANK? \"{\\\"a\\\":\\n\" @schema0\n  | \"<t>\" @schema1\nBLANK: /[ \\n]{1,4}/\n"
        );
        assert_eq!(schemas.len(), 2);
    }
}
