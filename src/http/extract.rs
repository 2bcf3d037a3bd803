//! From headers and bodies to the serving core's types; everything invalid is rejected by the name
//! of its field.

pub mod body;
mod encoding;
pub mod fields;
pub mod options;
pub mod ranges;
mod repeated;
pub mod scheduling;
mod legacy;
