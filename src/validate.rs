//! Validation of configuration values: the trait that each module's `Config` implements.
//!
//! Pure. Knows no file: `config` finds the line of each [`Diagnostic`] and renders it.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

/// A configuration table that can find its own mistakes.
pub trait Validate {
    /// Reports every value that cannot be used, not only the first.
    fn validate(&self, out: &mut Diagnostics);

    /// The diagnostics of this table alone, with paths relative to it.
    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut out = Diagnostics::default();
        self.validate(&mut out);
        out.found
    }
}

/// One value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Keys from the root to the value.
    pub path: Vec<String>,
    pub message: String,
    /// How to correct it, where the message does not already say.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// Dotted path, for tests.
    pub fn key(&self) -> String {
        self.path.join(".")
    }
}

/// Collects diagnostics in the order in which they are found.
#[derive(Debug, Default)]
pub struct Diagnostics {
    /// Keys from the root to the table that is being validated.
    table: Vec<String>,
    found: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Validates the table `key` of the current one.
    pub fn table(&mut self, key: &str, config: &impl Validate) {
        self.inside(key, |out| config.validate(out));
    }

    /// Runs `check` with the table `key` of the current one as the current one.
    pub fn inside(&mut self, key: &str, check: impl FnOnce(&mut Self)) {
        self.table.push(key.to_owned());
        check(self);
        self.table.pop();
    }

    /// Reports `key` of the current table.
    pub fn reject(&mut self, key: &str, message: impl Into<String>) -> Checked<'_> {
        let path = self.table.iter().cloned().chain([key.to_owned()]).collect();
        Checked(Some(self.found.push_mut(Diagnostic { path, message: message.into(), hint: None })))
    }

    /// Reports the current table as a whole.
    pub fn reject_table(&mut self, message: impl Into<String>) -> Checked<'_> {
        let path = self.table.clone();
        Checked(Some(self.found.push_mut(Diagnostic { path, message: message.into(), hint: None })))
    }

    /// Reports `key` unless `holds`; `rule` continues the sentence that the key begins.
    pub fn rule(&mut self, key: &str, holds: bool, rule: impl Display) -> Checked<'_> {
        if holds { Checked(None) } else { self.reject(key, format!("`{key}` {rule}")) }
    }

    /// Reports `key` unless `value` is finite and in `allowed`. `unit` follows the limits, with its
    /// space.
    pub fn range<T: Number>(
        &mut self,
        key: &str,
        value: T,
        allowed: impl RangeBounds<T>,
        unit: &str,
    ) -> Checked<'_> {
        let holds = value.is_finite() && allowed.contains(&value);
        self.rule(key, holds, format_args!("must be {}{unit}, not {value}", limits(&allowed)))
    }

    /// As [`Self::range`], for a value that may be left out.
    pub fn range_if_set<T: Number>(
        &mut self,
        key: &str,
        value: Option<T>,
        allowed: impl RangeBounds<T>,
        unit: &str,
    ) -> Checked<'_> {
        match value {
            Some(value) => self.range(key, value, allowed, unit),
            None => Checked(None),
        }
    }

    /// Reports each of these keys whose value is 0.
    pub fn positive<'k>(&mut self, values: impl IntoIterator<Item = (&'k str, u64)>) {
        for (key, value) in values {
            self.rule(key, value > 0, "must be more than 0");
        }
    }

    pub fn into_found(self) -> Vec<Diagnostic> {
        self.found
    }
}

/// The outcome of one check.
#[derive(Debug)]
pub struct Checked<'a>(Option<&'a mut Diagnostic>);

impl Checked<'_> {
    /// Adds how to correct the value, if the check failed.
    pub fn hint(self, hint: impl Into<String>) {
        if let Some(diagnostic) = self.0 {
            diagnostic.hint = Some(hint.into());
        }
    }
}

/// A number as configuration files hold it.
pub trait Number: Copy + PartialOrd + Display {
    /// False for NaN and infinities, which no option allows.
    fn is_finite(&self) -> bool {
        true
    }
}

impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}

impl Number for f32 {
    fn is_finite(&self) -> bool {
        f32::is_finite(*self)
    }
}

impl Number for f64 {
    fn is_finite(&self) -> bool {
        f64::is_finite(*self)
    }
}

/// More than 0 and at most `most`.
pub fn above_zero_to(most: f64) -> (Bound<f64>, Bound<f64>) {
    (Bound::Excluded(0.0), Bound::Included(most))
}

/// More than 0, with no upper limit.
pub const ABOVE_ZERO: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Unbounded);

/// `allowed` in words.
fn limits<T: Display>(allowed: &impl RangeBounds<T>) -> String {
    let (least, most) = (allowed.start_bound(), allowed.end_bound());
    match (least, most) {
        (Bound::Included(least), Bound::Included(most)) => format!("from {least} to {most}"),
        (Bound::Included(least), Bound::Unbounded) => format!("{least} or more"),
        (Bound::Excluded(least), Bound::Unbounded) => format!("more than {least}"),
        (Bound::Excluded(least), Bound::Included(most)) => {
            format!("more than {least} and at most {most}")
        }
        (Bound::Unbounded, Bound::Included(most)) => format!("at most {most}"),
        (Bound::Included(least), Bound::Excluded(most)) => {
            format!("at least {least} and less than {most}")
        }
        (Bound::Excluded(least), Bound::Excluded(most)) => {
            format!("more than {least} and less than {most}")
        }
        (Bound::Unbounded, Bound::Excluded(most)) => format!("less than {most}"),
        (Bound::Unbounded, Bound::Unbounded) => "a finite number".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Outer {
        share: f64,
        inner: Inner,
    }

    struct Inner {
        slots: u64,
        watts: Option<f64>,
    }

    impl Validate for Outer {
        fn validate(&self, out: &mut Diagnostics) {
            out.range("share", self.share, 0.0..=1.0, "").hint("a share");
            out.table("inner", &self.inner);
            out.rule("share", self.share < 3.0, "is far too large");
        }
    }

    impl Validate for Inner {
        fn validate(&self, out: &mut Diagnostics) {
            out.positive([("slots", self.slots)]);
            out.range_if_set("watts", self.watts, above_zero_to(10.0), " W").hint("per package");
        }
    }

    fn lines(config: &impl Validate) -> Vec<String> {
        let line = |found: Diagnostic| {
            format!("{}: {} ({})", found.key(), found.message, found.hint.unwrap_or_default())
        };
        config.diagnostics().into_iter().map(line).collect()
    }

    #[test]
    fn all_values_in_range_give_no_diagnostic() {
        let inner = Inner { slots: 1, watts: None };
        assert_eq!(lines(&Outer { share: 1.0, inner }), [""; 0]);
    }

    #[test]
    fn every_value_out_of_range_is_reported_at_its_path_with_limit_value_and_hint() {
        let inner = Inner { slots: 0, watts: Some(0.0) };
        assert_eq!(
            lines(&Outer { share: 4.5, inner }),
            [
                "share: `share` must be from 0 to 1, not 4.5 (a share)",
                "inner.slots: `slots` must be more than 0 ()",
                "inner.watts: `watts` must be more than 0 and at most 10 W, not 0 (per package)",
                "share: `share` is far too large ()",
            ]
        );
    }

    #[test]
    fn numbers_that_are_not_finite_are_outside_every_range() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut out = Diagnostics::default();
            out.range("n", number, .., "");
            out.range("n", number, 0.0.., "");
            out.range("n", number, ABOVE_ZERO, "");
            assert_eq!(out.into_found().len(), 3);
        }
    }
}
