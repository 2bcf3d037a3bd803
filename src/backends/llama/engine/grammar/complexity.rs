//! Size estimate of a schema before it is compiled: bounds the time and memory of compiling.
//!
//! Pure. llguidance merges what must hold together: each alternative of one part with each of the
//! other, with references expanded. A schema of a few lines can expand to billions of alternatives,
//! or recurse until the stack overflows, so both are estimated first.

use std::collections::HashMap;

use serde_json::Value;

use crate::backends::llama::wire::constraint::GrammarError;

/// Maximum members, values and alternatives after merging; the largest schemas of real interfaces
/// reach some ten thousand.
const SIZE: usize = 100_000;
/// Maximum nesting depth, including references.
const DEPTH: usize = 192;

/// Returns an error for schemas that take too long to compile.
pub(crate) fn check(schema: &Value) -> Result<(), GrammarError> {
    let mut survey = Survey { root: schema, behind: HashMap::new(), size: 0 };
    let whole = survey.weigh(schema, 0)?;
    survey.add(whole.size)
}

/// Size of a schema.
#[derive(Clone, Copy)]
struct Weight {
    alternatives: usize,
    /// Sum over all alternatives.
    size: usize,
}

impl Weight {
    const ONE: Self = Self { alternatives: 1, size: 1 };

    /// Both must hold.
    fn and(self, other: Self) -> Self {
        Self {
            alternatives: self.alternatives.saturating_mul(other.alternatives),
            size: (self.alternatives.saturating_mul(other.size))
                .saturating_add(other.alternatives.saturating_mul(self.size)),
        }
    }

    /// One must hold.
    fn or(self, other: Self) -> Self {
        Self {
            alternatives: self.alternatives.saturating_add(other.alternatives),
            size: self.size.saturating_add(other.size),
        }
    }
}

struct Survey<'s> {
    root: &'s Value,
    /// Weights of expanded references; [`Weight::ONE`] while one is being expanded.
    behind: HashMap<&'s str, Weight>,
    /// Sum over all references.
    size: usize,
}

impl<'s> Survey<'s> {
    fn add(&mut self, size: usize) -> Result<(), GrammarError> {
        self.size = self.size.saturating_add(size);
        if self.size > SIZE {
            let most = format!("it expands to more than {SIZE} members");
            return Err(GrammarError::TooComplex(most));
        }
        Ok(())
    }

    fn weigh(&mut self, schema: &'s Value, depth: usize) -> Result<Weight, GrammarError> {
        if depth > DEPTH {
            let deep = format!("it is nested more than {DEPTH} levels deep, including references");
            return Err(GrammarError::TooComplex(deep));
        }
        let Value::Object(fields) = schema else { return Ok(Weight::ONE) };
        let mut own = Weight { alternatives: 1, size: 1 + fields.len() };
        let mut together = Vec::new();
        for (key, value) in fields {
            match (key.as_str(), value) {
                ("type", Value::Array(types)) => own.alternatives = types.len().max(1),
                ("enum", Value::Array(values)) => {
                    together.push(Weight { alternatives: values.len(), size: values.len() });
                }
                ("anyOf" | "oneOf", Value::Array(options)) => {
                    let mut any = Weight { alternatives: 0, size: 0 };
                    for option in options {
                        any = any.or(self.weigh(option, depth + 1)?);
                    }
                    together.push(any);
                }
                ("allOf", Value::Array(parts)) => {
                    for part in parts {
                        together.push(self.weigh(part, depth + 1)?);
                    }
                }
                ("$ref", Value::String(place)) => together.push(self.behind(place, depth)?),
                ("prefixItems" | "items", Value::Array(inner)) => {
                    for inner in inner {
                        self.hold(&mut own, inner, depth)?;
                    }
                }
                ("items" | "additionalProperties" | "additionalItems", inner) => {
                    self.hold(&mut own, inner, depth)?;
                }
                ("properties" | "patternProperties", Value::Object(inner)) => {
                    for inner in inner.values() {
                        self.hold(&mut own, inner, depth)?;
                    }
                }
                ("required", Value::Array(names)) => {
                    own.size = own.size.saturating_add(names.len());
                }
                _ => {}
            }
            if together.iter().chain([&own]).any(|weight| weight.size > SIZE) {
                self.add(SIZE + 1)?;
            }
        }
        Ok(together.into_iter().fold(own, Weight::and))
    }

    /// Adds a member's schema. A bare reference counts as one: it is expanded only if something
    /// else must hold too.
    fn hold(
        &mut self,
        own: &mut Weight,
        inner: &'s Value,
        depth: usize,
    ) -> Result<(), GrammarError> {
        let weight = match inner.get("$ref").and_then(Value::as_str) {
            Some(place) if inner.as_object().is_some_and(|fields| fields.len() == 1) => {
                self.behind(place, depth)?;
                Weight::ONE
            }
            _ => self.weigh(inner, depth + 1)?,
        };
        own.size = own.size.saturating_add(weight.size);
        own.alternatives = own.alternatives.max(weight.alternatives);
        Ok(())
    }

    fn behind(&mut self, place: &'s str, depth: usize) -> Result<Weight, GrammarError> {
        if let Some(&known) = self.behind.get(place) {
            return Ok(known);
        }
        self.behind.insert(place, Weight::ONE);
        let found = place.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        // Compiling reports references that do not resolve.
        let Some(found) = found else { return Ok(Weight::ONE) };
        let weight = self.weigh(found, depth + 1)?;
        self.add(weight.size)?;
        self.behind.insert(place, weight);
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(schema: &Value) -> bool {
        matches!(check(schema), Err(GrammarError::TooComplex(_)))
    }

    #[test]
    fn what_must_hold_together_is_multiplied() {
        let options = |many: usize| -> Value { (0..many).map(|at| json!({"const": at})).collect() };
        assert!(!refused(&json!({"anyOf": options(9000)})));
        assert!(!refused(&json!({"allOf": [{"anyOf": options(100)}, {"anyOf": options(100)}]})));
        assert!(refused(&json!({"allOf": [{"anyOf": options(900)}, {"anyOf": options(900)}]})));
        let properties: Value =
            (0..900).map(|at| (format!("p{at}"), json!({"type": "string"}))).collect();
        assert!(!refused(&json!({"properties": properties})));
        assert!(refused(&json!({"properties": properties, "anyOf": options(900)})));
    }

    #[test]
    fn references_are_followed_once_even_if_cyclic() {
        let chain = |long: usize| {
            let next = |at: usize| json!({"properties": {"a": {"$ref": format!("#/$defs/d{at}")}}});
            let defs: Value = (0..long).map(|at| (format!("d{at}"), next(at + 1))).collect();
            json!({"$ref": "#/$defs/d0", "$defs": defs})
        };
        assert!(!refused(&chain(50)));
        assert!(refused(&chain(2000)));
        let tree = json!({"$ref": "#/$defs/n", "$defs": {"n": {"properties": {
            "left": {"$ref": "#/$defs/n"}, "right": {"$ref": "#/$defs/n"}, "value": {"type": "integer"},
        }}}});
        assert!(!refused(&tree));
    }

    #[test]
    fn references_that_must_hold_together_count_for_what_they_stand_for() {
        let pair = |of: usize| {
            let part = json!({"$ref": format!("#/$defs/d{of}")});
            json!({"anyOf": [{"allOf": [part, {"title": "a"}]}, {"allOf": [part, {"title": "b"}]}]})
        };
        let defs: Value = (0..30).map(|at| (format!("d{at}"), pair(at + 1))).collect();
        assert!(refused(&json!({"$ref": "#/$defs/d0", "$defs": defs})));
    }
}
