//! Nesting depth within a JSON value, character by character. Pure; does not validate.

#[derive(Debug, Default)]
pub(super) struct JsonScan {
    /// Objects and arrays that are open.
    pub(super) depth: usize,
    pub(super) in_string: bool,
    escaped: bool,
}

impl JsonScan {
    pub(super) fn feed(&mut self, char: char) {
        match char {
            _ if self.escaped => self.escaped = false,
            '\\' if self.in_string => self.escaped = true,
            '"' => self.in_string = !self.in_string,
            '{' | '[' if !self.in_string => self.depth += 1,
            '}' | ']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}
