//! Stub.
use crate::openai::Message;
pub struct TextVector;
impl TextVector {
    pub fn of_messages(_messages: &[Message]) -> Self {
        Self
    }
}
