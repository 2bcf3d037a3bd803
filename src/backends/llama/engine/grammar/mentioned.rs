//! The members that all subschemas of one object mention together.
//!
//! Pure. Looks through everything that applies to the object itself, and into no member.

use std::collections::BTreeSet;

use indexmap::IndexSet;
use serde_json::Value;

use super::references::References;
use crate::backends::llama::wire::constraint::GrammarError;

/// Most subschemas within each other, references included.
const DEPTH: usize = 192;

/// What the subschemas of an object say of its members.
#[derive(Default)]
pub(super) struct Mentioned {
    /// In the order in which they are mentioned.
    pub(super) names: IndexSet<String>,
    /// A subschema lists the members.
    lists: bool,
    /// A subschema says which other members there may be.
    decided: bool,
    least: u64,
    /// Subschemas and names that were looked at.
    pub(super) size: usize,
}

impl Mentioned {
    pub(super) fn by<'s>(
        schema: &'s Value,
        references: &References<'s>,
    ) -> Result<Self, GrammarError> {
        let mut search = Search { references, seen: BTreeSet::new(), found: Self::default() };
        search.look(schema, 0)?;
        Ok(search.found)
    }

    /// Whether other members may be forbidden: the names are listed, nothing allows others, and
    /// there are enough of them.
    pub(super) fn closes(&self) -> bool {
        self.lists && !self.decided && self.least <= self.names.len() as u64
    }
}

struct Search<'r, 's> {
    references: &'r References<'s>,
    /// Targets of references, by address: some are cyclic.
    seen: BTreeSet<usize>,
    found: Mentioned,
}

impl<'s> Search<'_, 's> {
    fn look(&mut self, schema: &'s Value, depth: usize) -> Result<(), GrammarError> {
        if depth > DEPTH {
            let deep = format!("it is nested more than {DEPTH} levels deep, including references");
            return Err(GrammarError::TooComplex(deep));
        }
        let Value::Object(fields) = schema else { return Ok(()) };
        self.found.size += 1;
        for (key, value) in fields {
            match (key.as_str(), value) {
                ("properties", Value::Object(members)) => {
                    self.found.lists = true;
                    self.found.size += members.len();
                    self.found.names.extend(members.keys().cloned());
                }
                ("required", Value::Array(names)) => self.add(names),
                ("dependentRequired" | "dependencies" | "dependentSchemas", Value::Object(of)) => {
                    for (name, needed) in of {
                        self.found.names.insert(name.clone());
                        match needed {
                            Value::Array(names) => self.add(names),
                            schema => self.look(schema, depth + 1)?,
                        }
                    }
                }
                ("additionalProperties", _) => self.found.decided = true,
                ("unevaluatedProperties", value) => self.found.decided |= value != false,
                ("minProperties", least) => {
                    self.found.least = self.found.least.max(least.as_u64().unwrap_or(0));
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => {
                    for part in parts {
                        self.look(part, depth + 1)?;
                    }
                }
                ("if" | "then" | "else", part) => self.look(part, depth + 1)?,
                ("$ref", Value::String(to)) => {
                    if let Some(found) = self.references.find(to)
                        && self.seen.insert(std::ptr::from_ref(found).addr())
                    {
                        self.look(found, depth + 1)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, names: &[Value]) {
        self.found.size += names.len();
        self.found.names.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
    }
}
