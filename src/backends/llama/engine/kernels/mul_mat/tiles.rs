//! One thread's part of a product, cut into tiles of sixteen rows and a few vectors that fit into registers.

use std::marker::PhantomData;
use std::ops::Range;

use super::layout::{ROWS, Values};

/// Products of packed rows with vectors; `B` is a block of sixteen rows.
pub(super) struct Job<'a, B> {
    /// All rows, sixteen at a time, `blocks` of each.
    packed: &'a [B],
    /// All vectors, `blocks` of each.
    vectors: &'a [Values],
    blocks: usize,
    out: *mut f32,
    /// Floats between the results of one vector and of the next.
    stride: usize,
    _out: PhantomData<&'a mut [f32]>,
}

impl<'a, B> Job<'a, B> {
    /// # Safety
    ///
    /// `out` has `stride` floats for each vector, at least sixteen for each of the row groups, and while the job lives
    /// nobody else touches those of the groups that this one computes.
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
        // SAFETY: kernels ask for vectors that `tiles` told them and for blocks that a row has. A check for each of
        // these ten instructions would cost a tenth.
        unsafe { self.vectors.get_unchecked(place) }
    }

    /// Where the sixteen results of a row group with a vector go.
    pub(super) fn place(&self, group: usize, vector: usize) -> *mut f32 {
        let place = vector * self.stride + group * ROWS;
        // SAFETY: within what the maker of the job promised.
        unsafe { self.out.add(place) }
    }

    /// The row groups of one of several parts of equal size.
    pub(super) fn part(&self, part: usize, parts: usize) -> Range<usize> {
        let groups = self.packed.len() / self.blocks;
        groups * part / parts..groups * (part + 1) / parts
    }

    /// Calls `tile(first vector, vectors)` until all vectors had their turn, at most `most` at a time.
    pub(super) fn tiles(&self, most: usize, mut tile: impl FnMut(usize, usize)) {
        let vectors = self.vectors.len() / self.blocks;
        for first in (0..vectors).step_by(most) {
            tile(first, most.min(vectors - first));
        }
    }
}
