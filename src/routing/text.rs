//! Stub.
use crate::openai::ChatRequest;
pub struct TextVector;
impl TextVector {
    pub fn of(_r: &ChatRequest) -> Self {
        Self
    }
}
