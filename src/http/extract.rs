//! From headers and bodies to the serving core's types; everything invalid is rejected by the name
//! of its field.

pub mod body;
pub mod fields;
pub mod options;
pub mod ranges;
pub mod scheduling;
pub mod tools;
