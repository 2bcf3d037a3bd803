//! Sets of request fields, small enough to be logged with every request. Pure.

use serde::{Deserialize, Serialize};

use crate::openai::RequestField;

/// A set of fields, in the log a list of their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<RequestField>", into = "Vec<RequestField>")]
pub struct FieldSet(u64);

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    pub fn first(self) -> Option<RequestField> {
        Vec::from(self).first().copied()
    }
}

impl FromIterator<RequestField> for FieldSet {
    fn from_iter<I: IntoIterator<Item = RequestField>>(fields: I) -> Self {
        Self(fields.into_iter().fold(0, |set, field| set | 1 << field as u8))
    }
}

impl From<Vec<RequestField>> for FieldSet {
    fn from(fields: Vec<RequestField>) -> Self {
        fields.into_iter().collect()
    }
}

impl From<FieldSet> for Vec<RequestField> {
    fn from(set: FieldSet) -> Self {
        let has = |field: &RequestField| set.0 & 1 << *field as u8 != 0;
        RequestField::ALL.iter().copied().filter(has).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_lists_of_names() {
        let set: FieldSet = [RequestField::Tools, RequestField::Stop].into_iter().collect();
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["stop","tools"]"#);
        let read: FieldSet = serde_json::from_str(r#"["tools","stop","of_next_year"]"#).unwrap();
        assert_eq!(read.first(), Some(RequestField::Stop));
        assert_eq!(Vec::from(read).last(), Some(&RequestField::Other));
    }
}
