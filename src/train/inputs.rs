//! Inputs of a learner: the features of a text that it reads.

use super::vectors::Vectors;

/// Features besides structure, which is always included.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) ngrams: bool,
    pub(super) vectors: Option<&'a Vectors>,
}

impl Inputs<'_> {
    /// The features of a served router.
    pub(super) const SERVED: Self = Self { ngrams: true, vectors: None };
}
