//! Tiling of one thread's part of a product: sixteen rows and as many vectors as fit into
//! registers.

use std::ptr;

use super::layout::{BLOCK, Block, ROWS, vector_blocks};

/// Groups of rows that are multiplied with a tile of vectors before the next tile: together they
/// stay in the second cache, and so each vector is read once for all of them.
const GROUPS: usize = 8;

/// Products of packed rows with vectors.
pub(super) struct Job<'a, B: Block> {
    /// All groups of sixteen rows.
    packed: &'a [B],
    /// All vectors, `vector_blocks` apart.
    vectors: &'a [B::Vector],
    columns: usize,
    /// The last group may have fewer than sixteen.
    rows: usize,
    results: Results<'a>,
}

/// Where results go.
#[derive(Clone, Copy)]
pub(super) struct Results<'a> {
    pub(super) out: *mut f32,
    /// Floats from one place to the next.
    pub(super) stride: usize,
    /// The place of each vector's results; their own order if there is none.
    pub(super) places: Option<&'a [u32]>,
}

impl<'a, B: Block> Job<'a, B> {
    /// # Safety
    ///
    /// `results` has `stride` floats, at least `rows`, for each place, and while the job exists no
    /// other code touches those of the groups that it computes. There is a place for each vector.
    pub(super) unsafe fn new(
        packed: &'a [B],
        vectors: &'a [B::Vector],
        (columns, rows): (usize, usize),
        results: Results<'a>,
    ) -> Self {
        Self { packed, vectors, columns, rows, results }
    }

    /// The packed blocks of a row group.
    pub(super) fn rows(&self, group: usize) -> &[B] {
        &self.packed[group * self.packed_blocks()..][..self.packed_blocks()]
    }

    fn packed_blocks(&self) -> usize {
        self.columns / BLOCK / B::STEPS
    }

    #[inline]
    pub(super) fn values(&self, vector: usize, block: usize) -> &B::Vector {
        let place = vector * vector_blocks(self.columns) + block;
        debug_assert!(block < self.columns / BLOCK && place < self.vectors.len());
        // SAFETY: kernels use vectors from `tiles` and blocks of a row only. A bounds check per ten
        // instructions would cost a tenth of the speed.
        unsafe { self.vectors.get_unchecked(place) }
    }

    /// Writes results of a group's rows with a vector, from the row `from` of the group on.
    pub(super) fn write(&self, group: usize, vector: usize, from: usize, products: &[f32]) {
        let Results { out, stride, places } = self.results;
        let place = places.map_or(vector, |places| places[vector] as usize);
        let row = group * ROWS + from;
        let count = products.len().min(self.rows.saturating_sub(row));
        let out = out.wrapping_add(place * stride + row);
        // SAFETY: in bounds by the contract of `new`, and nothing is written past the last row.
        unsafe { ptr::copy_nonoverlapping(products.as_ptr(), out, count) };
    }

    /// Calls `tile(group, first vector, number of vectors)` for one of `parts` equal parts of the
    /// row groups until all vectors are covered, with the greatest of the `widths` that is left;
    /// these ascend from 1.
    pub(super) fn tiles(
        &self,
        (part, parts): (usize, usize),
        widths: &[usize],
        mut tile: impl FnMut(usize, usize, usize),
    ) {
        let groups = self.packed.len() / self.packed_blocks();
        let vectors = self.vectors.len() / vector_blocks(self.columns);
        let (mut group, end) = (groups * part / parts, groups * (part + 1) / parts);
        while group < end {
            let together = group..end.min(group + GROUPS);
            let mut first = 0;
            while first < vectors {
                let fits = |width: &&usize| **width <= vectors - first;
                let width = widths.iter().rev().find(fits).copied().unwrap_or(1);
                together.clone().for_each(|group| tile(group, first, width));
                first += width;
            }
            group = together.end;
        }
    }
}
