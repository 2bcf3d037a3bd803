use std::path::Path;
use super::*;
pub const CARD_FILE: &str = "card.md";
pub fn card(_report: &Report, _command: &str) -> String { String::new() }
