//! Tiling of one thread's part of a product: sixteen rows and as many vectors as fit into
//! registers.

use std::marker::PhantomData;
use std::ops::Range;

use super::layout::{ROWS, Values};

/// Products of packed rows with vectors; `B` is a block of sixteen rows.
pub(super) struct Job<'a, B> {
    /// All groups of sixteen rows, `blocks` blocks each.
    packed: &'a [B],
    /// All vectors, `blocks` blocks each.
    vectors: &'a [Values],
    blocks: usize,
    out: *mut f32,
    /// Distance in floats between the results of consecutive vectors.
    stride: usize,
    _out: PhantomData<&'a mut [f32]>,
}

impl<'a, B> Job<'a, B> {
    /// # Safety
    ///
    /// `out` has `stride` floats for each vector, at least sixteen for each row group, and while
    /// the job exists no other code touches those of the groups that it computes.
    pub(super) unsafe fn new(
        packed: &'a [B],
        vectors: &'a [Values],
        blocks: usize,
        out: *mut f32,
        stride: usize,
    ) -> Self {
        Self { packed, vectors, blocks, out, stride, _out: PhantomData }
    }

    pub(super) fn rows(&self, group: usize) -> &[B] {
        &self.packed[group * self.blocks..][..self.blocks]
    }

    #[inline]
    pub(super) fn values(&self, vector: usize, block: usize) -> &Values {
        let place = vector * self.blocks + block;
        debug_assert!(block < self.blocks && place < self.vectors.len());
        // SAFETY: kernels use vectors from `tiles` and blocks of a row only. A bounds check per ten
        // instructions would cost a tenth of the speed.
        unsafe { self.vectors.get_unchecked(place) }
    }

    /// Pointer to the sixteen results of a row group with a vector.
    pub(super) fn place(&self, group: usize, vector: usize) -> *mut f32 {
        let place = vector * self.stride + group * ROWS;
        // SAFETY: in bounds by the contract of `new`.
        unsafe { self.out.add(place) }
    }

    /// The row groups of one of `parts` equal parts.
    pub(super) fn part(&self, part: usize, parts: usize) -> Range<usize> {
        let groups = self.packed.len() / self.blocks;
        groups * part / parts..groups * (part + 1) / parts
    }

    /// Calls `tile(first vector, number of vectors)` until all vectors are covered, at most `most`
    /// at a time.
    pub(super) fn tiles(&self, most: usize, mut tile: impl FnMut(usize, usize)) {
        let vectors = self.vectors.len() / self.blocks;
        for first in (0..vectors).step_by(most) {
            tile(first, most.min(vectors - first));
        }
    }
}
