//! What a local model cannot do for a request, in a sentence. Pure.

use crate::openai::RequestField;

/// One thing that local models cannot do for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFault {
    /// Path of the field.
    pub param: String,
    /// A sentence that begins with the path.
    pub message: String,
    pub code: &'static str,
}

/// The field has a value that local models do not take.
const INVALID_VALUE: &str = "invalid_value";
/// Local models do not have the field at all.
const UNSUPPORTED: &str = "unsupported_parameter";

impl LocalFault {
    /// `rule` goes on after the path.
    pub(super) fn value(param: impl Into<String>, rule: &str) -> Self {
        let param = param.into();
        Self { message: format!("`{param}` {rule}"), param, code: INVALID_VALUE }
    }

    pub(super) fn unsupported(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("`{param}`: local models do not support this");
        Self { message, param, code: UNSUPPORTED }
    }

    pub fn field(&self) -> RequestField {
        RequestField::of(&self.param)
    }
}
