//! JSON in the format of Python's `json.dumps`, which models saw in training.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// The filter `tojson` of Hugging Face's templates: nothing escaped for HTML, a space after `,` and
/// `:`.
#[expect(clippy::needless_pass_by_value, reason = "how minijinja calls filters")]
pub(crate) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Python's other options repeat the defaults of this filter.
    for option in ["ensure_ascii", "separators", "sort_keys"] {
        options.get::<Option<Value>>(option)?;
    }
    options.assert_all_used()?;
    let text = match indent {
        Some(width) => dump(value, PrettyFormatter::with_indent(" ".repeat(width).as_bytes())),
        None => dump(value, OneLine),
    };
    let text = text.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(text))
}

fn dump(value: &Value, formatter: impl Formatter) -> serde_json::Result<String> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, formatter))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// `{"a": 1, "b": [2, 3]}`.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    use super::*;

    #[test]
    fn the_output_equals_pythons_json() {
        let mut environment = Environment::new();
        environment.add_filter("tojson", tojson);
        let json = r#"{"z": "<é'&\n", "a": [1, 2.0, null], "e": {}}"#;
        let value: Value = serde_json::from_str(json).unwrap();
        let render = |source| {
            environment.render_str(source, minijinja::context! { value => &value }).unwrap()
        };
        assert_eq!(render("{{ value | tojson }}"), json);
        assert_eq!(
            render("{{ value | tojson(indent=2) }}"),
            "{\n  \"z\": \"<é'&\\n\",\n  \"a\": [\n    1,\n    2.0,\n    null\n  ],\n  \"e\": {}\n}"
        );
        assert_eq!(render("{{ value | tojson(ensure_ascii=False) }}"), json);
    }
}
