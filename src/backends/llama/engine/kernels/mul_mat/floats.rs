//! Layouts of the types of 16-bit floats. Pure.

use super::layout::{BLOCK, Block, Each, half};

/// `F16`: the i-th holds column i.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct F16 {
    pub(super) columns: [Each<u16>; BLOCK],
}

/// `BF16`: the i-th holds columns 2i and 2i + 1 of each row.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Bf16 {
    pub(super) pairs: [Each<[u16; 2]>; BLOCK / 2],
}

/// A block of a vector.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Floats(pub(super) [f32; BLOCK]);

/// A block of a vector in pairs of bf16, the first in the lower half.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs(pub(super) [i32; BLOCK / 2]);

impl Block for F16 {
    type Vector = Floats;
    const STEPS: usize = 1;
    const PLAIN_BYTES: usize = 2 * BLOCK;

    fn set(&mut self, row: usize, plain: &[u8]) {
        for (column, numbers) in self.columns.iter_mut().enumerate() {
            numbers[row] = half(plain, 2 * column);
        }
    }
}

impl Block for Bf16 {
    type Vector = Pairs;
    const STEPS: usize = 1;
    const PLAIN_BYTES: usize = 2 * BLOCK;

    fn set(&mut self, row: usize, plain: &[u8]) {
        for (pair, numbers) in self.pairs.iter_mut().enumerate() {
            numbers[row] = [half(plain, 4 * pair), half(plain, 4 * pair + 2)];
        }
    }
}
