//! Tiling of one thread's part of a product: sixteen rows and as many vectors as fit into
//! registers.

use std::marker::PhantomData;
use std::ops::Range;

use super::layout::{BLOCK, Block, ROWS, Values};

/// Products of packed rows with vectors.
pub(super) struct Job<'a, B> {
    /// All groups of sixteen rows.
    packed: &'a [B],
    /// All vectors, `blocks` blocks each.
    vectors: &'a [Values],
    /// Blocks of 32 columns in a row.
    blocks: usize,
    out: *mut f32,
    /// Distance in floats between the results of consecutive vectors.
    stride: usize,
    _out: PhantomData<&'a mut [f32]>,
}

impl<'a, B: Block> Job<'a, B> {
    /// # Safety
    ///
    /// `out` has `stride` floats for each vector, at least sixteen for each row group, and while
    /// the job exists no other code touches those of the groups that it computes.
    pub(super) unsafe fn new(
        packed: &'a [B],
        vectors: &'a [Values],
        columns: usize,
        out: *mut f32,
        stride: usize,
    ) -> Self {
        Self { packed, vectors, blocks: columns / BLOCK, out, stride, _out: PhantomData }
    }

    /// The packed blocks of a row group.
    pub(super) fn rows(&self, group: usize) -> &[B] {
        &self.packed[group * self.packed_blocks()..][..self.packed_blocks()]
    }

    fn packed_blocks(&self) -> usize {
        self.blocks / B::STEPS
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
        let groups = self.packed.len() / self.packed_blocks();
        groups * part / parts..groups * (part + 1) / parts
    }

    /// Calls `tile(first vector, number of vectors)` until all vectors are covered, with the
    /// greatest of the `widths` that is left; these ascend from 1.
    pub(super) fn tiles(&self, widths: &[usize], mut tile: impl FnMut(usize, usize)) {
        let vectors = self.vectors.len() / self.blocks;
        let mut first = 0;
        while first < vectors {
            let fits = |width: &&usize| **width <= vectors - first;
            let width = widths.iter().rev().find(fits).copied().unwrap_or(1);
            tile(first, width);
            first += width;
        }
    }
}
