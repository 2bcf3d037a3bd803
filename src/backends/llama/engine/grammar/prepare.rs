//! Schemas as the grammar compiler takes them: references resolved, objects closed, and keywords
//! that it lacks left out or refused by name.
//!
//! Pure. Models invent members where a schema does not forbid them, and applications fail on them.
//! So an object with `properties` is closed unless it says otherwise, as OpenAI's strict mode and
//! llama.cpp do. Where several subschemas describe one object (`allOf`, a `$ref` beside other
//! keywords), each one alone must stay open: the object as a whole is closed, to the names that any
//! of them mentions. A definition may be used both ways and is then written twice.

use std::collections::BTreeSet;

use indexmap::IndexSet;
use serde_json::{Map, Value, json};

use super::mentioned::Mentioned;
use super::overlap::exclude_each_other;
use super::references::References;
use crate::backends::llama::wire::constraint::GrammarError;

/// Most subschemas and names that are written; the survey of complexity counts what they expand to.
const SIZE: usize = 200_000;

/// Most subschemas that apply to one value by references.
const WAY: usize = 500;

/// Keywords of JSON Schema that the grammar cannot enforce.
const UNENFORCED: [&str; 16] = [
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "not",
    "if",
    "then",
    "else",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
];

/// Keywords that are copied as they are.
const PLAIN: [&str; 16] = [
    "type",
    "const",
    "enum",
    "required",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

/// Formats in common use that describe a text and are not enforced, as JSON Schema allows: those of
/// its own vocabulary, of `OpenAPI` and of Pydantic. A strict schema with any other one is refused.
const ANNOTATIONS: [&str; 31] = [
    "base64",
    "base64url",
    "binary",
    "byte",
    "char",
    "color",
    "decimal",
    "directory-path",
    "double",
    "file-path",
    "float",
    "html",
    "idn-email",
    "idn-hostname",
    "int32",
    "int64",
    "iri",
    "iri-reference",
    "json-pointer",
    "json-string",
    "markdown",
    "multi-host-uri",
    "password",
    "path",
    "phone",
    "regex",
    "relative-json-pointer",
    "uri-reference",
    "uri-template",
    "url",
    "uuid4",
];

/// Formats that are enforced.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// Keywords beside which another subschema describes the same object.
const OWN: [&str; 4] = ["properties", "patternProperties", "required", "additionalProperties"];

/// The patterns that are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patterns {
    All,
    /// Those without look-around and back-references, which the grammar lacks.
    Regular,
    None,
}

impl Patterns {
    fn keep(self, pattern: &str) -> bool {
        match self {
            Self::All => true,
            Self::Regular => regex::Regex::new(pattern).is_ok(),
            Self::None => false,
        }
    }
}

/// The schema for the compiler. A `lenient` one loses keywords that cannot be enforced, and other
/// patterns than `patterns`.
pub(super) fn prepare(
    schema: &Value,
    lenient: bool,
    patterns: Patterns,
) -> Result<Value, GrammarError> {
    let mut writer = Writer {
        references: References::of(schema),
        lenient,
        patterns: if lenient { patterns } else { Patterns::All },
        definitions: IndexSet::new(),
        unenforced: BTreeSet::new(),
        size: 0,
    };
    let mut prepared = writer.write(schema, Use::Alone)?;
    let mut definitions = Map::new();
    while let Some(&definition) = writer.definitions.get_index(definitions.len()) {
        let Definition { schema, used, .. } = definition;
        writer.check_circle(schema, schema, &mut BTreeSet::new())?;
        definitions.insert(definitions.len().to_string(), writer.write(schema, used)?);
    }
    if let Some(fields) = prepared.as_object_mut()
        && !definitions.is_empty()
    {
        fields.insert("$defs".to_owned(), definitions.into());
    }
    if writer.unenforced.is_empty() {
        return Ok(prepared);
    }
    let keywords = writer.unenforced.into_iter().collect::<Vec<_>>().join(", ");
    Err(GrammarError::Unsupported(format!("{keywords} cannot be enforced")))
}

/// How a subschema is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Use {
    /// Nothing else describes the value.
    Alone,
    /// Others describe the same value, which is closed where they meet.
    Together,
}

/// A subschema that references lead to; equal if it is the same one in the same use.
#[derive(Clone, Copy)]
struct Definition<'s> {
    schema: &'s Value,
    used: Use,
}

impl PartialEq for Definition<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.schema, other.schema) && self.used == other.used
    }
}

impl Eq for Definition<'_> {}

impl std::hash::Hash for Definition<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (std::ptr::from_ref(self.schema), self.used).hash(state);
    }
}

struct Writer<'s> {
    references: References<'s>,
    lenient: bool,
    patterns: Patterns,
    /// In the order of their names, which are numbers.
    definitions: IndexSet<Definition<'s>>,
    /// Keywords that a strict schema may not have.
    unenforced: BTreeSet<String>,
    size: usize,
}

impl<'s> Writer<'s> {
    fn write(&mut self, schema: &'s Value, used: Use) -> Result<Value, GrammarError> {
        // The compiler reports what is no schema.
        let Value::Object(fields) = schema else { return Ok(schema.clone()) };
        self.grow(1 + fields.len())?;
        let meets = meets(fields);
        let inner = if meets { Use::Together } else { used };
        let mut written = Map::new();
        // A name of an unread pattern is no other member.
        let mut forgets = false;
        for (key, value) in fields {
            let value = match (key.as_str(), value) {
                // The compiler does not take a circle of references with anything beside them.
                ("type", value) if self.is_said_behind(fields, value) => continue,
                ("pattern", Value::String(pattern)) if !self.patterns.keep(pattern) => continue,
                (key, value) if PLAIN.contains(&key) => value.clone(),
                ("$ref", Value::String(to)) => self.refer(to, inner)?,
                ("allOf" | "anyOf", Value::Array(parts)) => self.all(parts, inner)?,
                ("oneOf", Value::Array(options)) => {
                    let key = self.alternatives(options, fields);
                    let options = self.all(options, inner)?;
                    written.insert(key.to_owned(), options);
                    continue;
                }
                ("items" | "prefixItems", Value::Array(items)) => self.all(items, Use::Alone)?,
                ("items" | "additionalItems" | "additionalProperties", value) => {
                    self.write(value, Use::Alone)?
                }
                ("properties" | "patternProperties", Value::Object(members)) => {
                    let mut all = Map::new();
                    for (name, member) in members {
                        if key == "patternProperties" && !self.patterns.keep(name) {
                            forgets = true;
                            continue;
                        }
                        all.insert(name.clone(), self.write(member, Use::Alone)?);
                    }
                    all.into()
                }
                ("format", Value::String(format)) if !FORMATS.contains(&format.as_str()) => {
                    if !self.lenient && !ANNOTATIONS.contains(&format.as_str()) {
                        self.unenforced.insert(format!("\"format\": \"{format}\""));
                    }
                    continue;
                }
                // The wrong type: the compiler says so.
                (
                    "format" | "$ref" | "allOf" | "anyOf" | "oneOf" | "properties"
                    | "patternProperties" | "prefixItems",
                    value,
                ) => value.clone(),
                _ => {
                    self.note(key, value, fields);
                    continue;
                }
            };
            written.insert(key.clone(), value);
        }
        if forgets {
            written.shift_remove("additionalProperties");
        } else if used == Use::Alone {
            self.close(schema, meets, &mut written)?;
        }
        Ok(Value::Object(written))
    }

    fn all(&mut self, schemas: &'s [Value], used: Use) -> Result<Value, GrammarError> {
        let written = schemas.iter().map(|schema| self.write(schema, used));
        Ok(Value::Array(written.collect::<Result<_, _>>()?))
    }

    fn refer(&mut self, to: &str, used: Use) -> Result<Value, GrammarError> {
        let Some(schema) = self.references.find(to) else {
            return Err(GrammarError::Unsupported(format!(
                "the `$ref` {to:?} leads to no place in it"
            )));
        };
        let (place, _) = self.definitions.insert_full(Definition { schema, used });
        Ok(format!("#/$defs/{place}").into())
    }

    /// The keyword for alternatives of which one holds: `anyOf`, where none of them excludes
    /// another by anything but itself. The compiler only tells some apart, and none behind
    /// references.
    fn alternatives(&self, options: &'s [Value], fields: &Map<String, Value>) -> &'static str {
        let apart = self.lenient || exclude_each_other(options, &self.references);
        if apart && !fields.contains_key("anyOf") { "anyOf" } else { "oneOf" }
    }

    /// Whether the schema behind the `$ref` of `fields` is of the same type.
    fn is_said_behind(&self, fields: &'s Map<String, Value>, named: &Value) -> bool {
        let to = fields.get("$ref").and_then(Value::as_str);
        let behind = to.and_then(|to| self.references.find(to));
        behind.is_some_and(|schema| schema.get("type") == Some(named))
    }

    /// Notes a keyword that is left out although it has an effect.
    fn note(&mut self, key: &str, value: &Value, fields: &Map<String, Value>) {
        let has = |key| fields.contains_key(key);
        let idle = match key {
            "uniqueItems" => value != true,
            "minContains" | "maxContains" => !has("contains"),
            "if" => !has("then") && !has("else"),
            "then" | "else" => !has("if"),
            "not" => value == false,
            "contains" => false,
            // Closed as a whole anyway; alternatives could be more exact.
            "unevaluatedProperties" => {
                value == true || value == false && !has("anyOf") && !has("oneOf")
            }
            _ => value == true,
        };
        let known = UNENFORCED.iter().find(|known| **known == key);
        let named = known.filter(|_| !idle && !self.lenient).map(|key| format!("\"{key}\""));
        self.unenforced.extend(named);
    }

    /// Forbids members without a name, unless the schema allows them.
    fn close(
        &mut self,
        schema: &'s Value,
        meets: bool,
        written: &mut Map<String, Value>,
    ) -> Result<(), GrammarError> {
        if !meets && !written.contains_key("properties") {
            return Ok(());
        }
        let mentioned = Mentioned::by(schema, &self.references)?;
        self.grow(mentioned.size)?;
        if !mentioned.closes() {
            return Ok(());
        }
        let properties = written.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            for name in mentioned.names {
                properties.entry(name).or_insert(Value::Bool(true));
            }
        }
        written.entry("additionalProperties").or_insert(Value::Bool(false));
        Ok(())
    }

    /// Refuses a reference that leads back to itself with nothing in between: such a schema
    /// describes no value.
    fn check_circle(
        &self,
        start: &'s Value,
        schema: &'s Value,
        way: &mut BTreeSet<usize>,
    ) -> Result<(), GrammarError> {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let behind = reference.and_then(|to| self.references.find(to));
        let parts = schema.get("allOf").and_then(Value::as_array);
        for next in behind.into_iter().chain(parts.into_iter().flatten()) {
            if std::ptr::eq(next, start) {
                let circle = "a `$ref` leads back to itself";
                return Err(GrammarError::Unsupported(circle.to_owned()));
            }
            if way.len() > WAY {
                return Err(GrammarError::TooComplex("its references lead too far".to_owned()));
            }
            if way.insert(std::ptr::from_ref(next).addr()) {
                self.check_circle(start, next, way)?;
            }
        }
        Ok(())
    }

    fn grow(&mut self, by: usize) -> Result<(), GrammarError> {
        self.size = self.size.saturating_add(by);
        if self.size > SIZE {
            return Err(GrammarError::TooComplex(format!("it has more than {SIZE} members")));
        }
        Ok(())
    }
}

/// Whether several subschemas describe the same object here.
fn meets(fields: &Map<String, Value>) -> bool {
    let several = |key: &str| match fields.get(key) {
        Some(Value::Array(parts)) => parts.len(),
        Some(_) => 1,
        None => 0,
    };
    let has = |key: &str| fields.contains_key(key);
    let in_place = ["$ref", "anyOf", "oneOf", "if", "dependentSchemas", "dependentRequired"];
    let in_place = several("allOf") + in_place.iter().filter(|key| has(key)).count();
    in_place > 1 || in_place == 1 && OWN.iter().any(|key| has(key))
}

#[cfg(test)]
mod tests;
