//! From headers and bodies to the serving core's types; everything invalid is rejected by the name
//! of its field.

pub mod body;
mod encoding;
pub mod fields;
mod legacy;
pub mod limits;
pub mod options;
pub mod ranges;
mod repeated;
pub mod scheduling;
