//! From headers and bodies to the serving core's types; everything invalid is rejected by the name
//! of its field.

pub mod body;
pub mod content_type;
mod encoding;
pub mod fields;
mod legacy;
pub mod limits;
mod local_only;
pub mod options;
pub mod path;
pub mod ranges;
mod repeated;
pub mod scheduling;
