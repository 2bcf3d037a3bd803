//! Stub.
use super::text::TextVector;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct AdequacyError;
pub struct AdequacyModel;
impl AdequacyModel {
    pub fn load(_d: &std::path::Path) -> Result<Self, AdequacyError> {
        Ok(Self)
    }
    pub fn built_in() -> Result<Self, AdequacyError> {
        Ok(Self)
    }
    pub fn predict(&self, _t: &TextVector, a: f64) -> f64 {
        1.0 / (1.0 + (-a).exp())
    }
    pub fn ability_of(&self, _n: &str) -> Option<f64> {
        None
    }
}
