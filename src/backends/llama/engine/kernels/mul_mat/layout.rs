//! Memory layout of weights and vectors: sixteen interleaved rows, so that one vector register
//! holds four weights of each. Pure.

/// Interleaved rows: the lanes of a 512-bit register.
pub(super) const ROWS: usize = 16;

/// Weights of a row that share a scale, in GGUF's types.
pub(super) const BLOCK: usize = 32;

/// Bytes of a row's block in GGUF: f16 scale, f16 minimum, then nibbles, elements i and i + 16 in
/// one byte.
const Q4_1_BYTES: usize = 20;
/// f16 scale, then signed bytes.
const Q8_0_BYTES: usize = 34;

/// A block of `Q4_1` of sixteen rows: weight = scale × quant + minimum. As large as in GGUF.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Nibbles {
    /// f16.
    pub(super) scales: [u16; ROWS],
    /// f16.
    pub(super) minima: [u16; ROWS],
    /// The i-th 64 bytes hold four bytes per row: weights 8i to 8i + 3 in the low halves, the next
    /// four in the high ones.
    pub(super) quants: [[u8; 4 * ROWS]; BLOCK / 8],
}

/// A block of `Q8_0` of sixteen rows: weight = scale × (quant − 128). As large as in GGUF.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    /// The i-th 64 bytes hold weights 4i to 4i + 3, four bytes per row.
    pub(super) quants: [[u8; 4 * ROWS]; BLOCK / 4],
    /// f16.
    pub(super) scales: [u16; ROWS],
}

/// A block of a vector: value = scale × quant; the greatest quant is ±127.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Values {
    pub(super) scale: f32,
    /// scale × Σ quants.
    pub(super) sum: f32,
    /// −128 × Σ quants: corrects the offset of [`Bytes`].
    pub(super) excess: i32,
    /// Four signed bytes each, the first in the lowest byte.
    pub(super) quants: [i32; BLOCK / 4],
}

/// Packs rows of `Q4_1` with `blocks` blocks each. `packed` has one block for sixteen of `plain`.
pub(super) fn pack_q4_1(plain: &[u8], blocks: usize, packed: &mut [Nibbles]) {
    each_row(plain, blocks, Q4_1_BYTES, |place, row, block| {
        let packed = &mut packed[place];
        packed.scales[row] = u16::from_le_bytes([block[0], block[1]]);
        packed.minima[row] = u16::from_le_bytes([block[2], block[3]]);
        let quants = &block[4..];
        let nibble = |index: usize| quants[index % 16] >> (index / 16 * 4) & 15;
        for (part, packed) in packed.quants.iter_mut().enumerate() {
            for (byte, packed) in packed[4 * row..4 * row + 4].iter_mut().enumerate() {
                let low = 8 * part + byte;
                *packed = nibble(low) | nibble(low + 4) << 4;
            }
        }
    });
}

/// Packs rows of `Q8_0` with `blocks` blocks each. `packed` has one block for sixteen of `plain`.
pub(super) fn pack_q8_0(plain: &[u8], blocks: usize, packed: &mut [Bytes]) {
    each_row(plain, blocks, Q8_0_BYTES, |place, row, block| {
        let packed = &mut packed[place];
        packed.scales[row] = u16::from_le_bytes([block[0], block[1]]);
        for (packed, quants) in packed.quants.iter_mut().zip(block[2..].chunks(4)) {
            for (packed, quant) in packed[4 * row..4 * row + 4].iter_mut().zip(quants) {
                // Signed to unsigned: plus 128.
                *packed = quant ^ 0x80;
            }
        }
    });
}

/// Calls `pack` with the index of the packed block, the row in it, and the plain block.
fn each_row(plain: &[u8], blocks: usize, bytes: usize, mut pack: impl FnMut(usize, usize, &[u8])) {
    for (index, block) in plain.chunks_exact(bytes).enumerate() {
        let (row, column) = (index / blocks, index % blocks);
        pack(row / ROWS * blocks + column, row % ROWS, block);
    }
}
