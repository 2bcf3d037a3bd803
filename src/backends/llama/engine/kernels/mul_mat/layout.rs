//! Memory layout of weights and vectors: sixteen interleaved rows, so that one vector register
//! holds four weights of each. Pure.

/// Interleaved rows: the lanes of a 512-bit register.
pub(super) const ROWS: usize = 16;

/// Values of a vector that share a scale.
pub(super) const BLOCK: usize = 32;

/// A number or byte of each of the sixteen rows.
pub(super) type Each<T> = [T; ROWS];

/// Four bytes of each row, of consecutive columns.
pub(super) type Fours = [u8; 4 * ROWS];

/// A packed block: sixteen rows of a whole number of [`BLOCK`] columns.
pub(super) trait Block: Copy {
    /// [`BLOCK`] values of a vector, as this block's kernels read them.
    type Vector: Vector;
    /// Blocks of 32 columns in it.
    const STEPS: usize;
    /// Bytes of a row's block in GGUF.
    const PLAIN_BYTES: usize;

    /// Takes the block of a row over from GGUF's layout.
    fn set(&mut self, row: usize, plain: &[u8]);
}

/// `Q4_0`: weight = scale × (quant − 8).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Q4_0 {
    /// f16.
    pub(super) scales: Each<u16>,
    pub(super) nibbles: Nibbles,
}

/// `Q4_1`: weight = scale × quant + minimum.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Q4_1 {
    /// f16.
    pub(super) scales: Each<u16>,
    /// f16.
    pub(super) minima: Each<u16>,
    pub(super) nibbles: Nibbles,
}

/// `Q5_0`: weight = scale × (quant − 16).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Q5_0 {
    /// f16.
    pub(super) scales: Each<u16>,
    pub(super) nibbles: Nibbles,
    pub(super) fifth_bits: FifthBits,
}

/// `Q8_0`: weight = scale × (quant − 128).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Q8_0 {
    /// f16.
    pub(super) scales: Each<u16>,
    /// The i-th holds columns 4i to 4i + 3.
    pub(super) bytes: [Fours; BLOCK / 4],
}

/// Low halves of 32 columns: the i-th holds columns 8i to 8i + 3 in the low halves of its bytes,
/// the next four in the high ones.
pub(super) type Nibbles = [Fours; BLOCK / 8];

/// A fifth bit of 32 columns: bit j of the i-th belongs to byte j of columns 4i to 4i + 3.
pub(super) type FifthBits = [u64; BLOCK / 4];

/// [`BLOCK`] values of a vector; any bytes are valid.
pub(super) trait Vector: Copy {
    /// Converts a vector, block by block.
    ///
    /// # Safety
    ///
    /// The CPU runs a kernel that reads these blocks.
    unsafe fn convert(values: &[f32], blocks: &mut [Self]);
}

/// Blocks from one vector to the next: one more than a vector has. Without the gap, vectors whose
/// lengths are multiples of 4 KiB would all be in the same few lines of the first cache.
pub(super) const fn vector_blocks(columns: usize) -> usize {
    columns / BLOCK + 1
}

/// A block of a vector: value = scale × quant; the greatest quant is ±127.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Values {
    pub(super) scale: f32,
    /// −Σ quants of each half.
    pub(super) negative_sums: [i32; 2],
    /// scale × Σ quants.
    pub(super) sum: f32,
    /// Four signed bytes each, the first in the lowest byte.
    pub(super) quants: [i32; BLOCK / 4],
}

/// Packs rows of `columns` weights each into groups, of which the last may have fewer.
pub(super) fn pack<B: Block>(plain: &[u8], columns: usize, packed: &mut [B]) {
    let blocks = columns / BLOCK / B::STEPS;
    for (index, plain) in plain.chunks_exact(B::PLAIN_BYTES).enumerate() {
        let (row, column) = (index / blocks, index % blocks);
        packed[row / ROWS * blocks + column].set(row % ROWS, plain);
    }
}

impl Block for Q4_0 {
    type Vector = Values;
    const STEPS: usize = 1;
    const PLAIN_BYTES: usize = 18;

    fn set(&mut self, row: usize, plain: &[u8]) {
        self.scales[row] = half(plain, 0);
        set_nibbles(&mut self.nibbles, row, |column| split_halves(&plain[2..], column));
    }
}

impl Block for Q4_1 {
    type Vector = Values;
    const STEPS: usize = 1;
    const PLAIN_BYTES: usize = 20;

    fn set(&mut self, row: usize, plain: &[u8]) {
        (self.scales[row], self.minima[row]) = (half(plain, 0), half(plain, 2));
        set_nibbles(&mut self.nibbles, row, |column| split_halves(&plain[4..], column));
    }
}

impl Block for Q5_0 {
    type Vector = Values;
    const STEPS: usize = 1;
    const PLAIN_BYTES: usize = 22;

    fn set(&mut self, row: usize, plain: &[u8]) {
        self.scales[row] = half(plain, 0);
        let fifth = |column: usize| plain[2 + column / 8] >> (column % 8) & 1;
        set_fifth_bits(&mut self.fifth_bits, row, fifth);
        set_nibbles(&mut self.nibbles, row, |column| split_halves(&plain[6..], column));
    }
}

impl Block for Q8_0 {
    type Vector = Values;
    const STEPS: usize = 1;
    const PLAIN_BYTES: usize = 34;

    fn set(&mut self, row: usize, plain: &[u8]) {
        self.scales[row] = half(plain, 0);
        for (column, quant) in plain[2..].iter().enumerate() {
            // Signed to unsigned: plus 128.
            self.bytes[column / 4][4 * row + column % 4] = quant ^ 0x80;
        }
    }
}

/// The f16 at byte `at`.
pub(super) fn half(plain: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([plain[at], plain[at + 1]])
}

/// A quant of GGUF's blocks of 32: columns i and i + 16 are in one byte.
pub(super) fn split_halves(quants: &[u8], column: usize) -> u8 {
    quants[column % 16] >> (column / 16 * 4) & 15
}

/// Sets the low halves of a row's quants.
pub(super) fn set_nibbles(nibbles: &mut Nibbles, row: usize, quant: impl Fn(usize) -> u8) {
    for (part, fours) in nibbles.iter_mut().enumerate() {
        for (byte, both) in fours[4 * row..4 * row + 4].iter_mut().enumerate() {
            let low = 8 * part + byte;
            *both = quant(low) | quant(low + 4) << 4;
        }
    }
}

/// Sets the fifth bits of a row's quants.
pub(super) fn set_fifth_bits(bits: &mut FifthBits, row: usize, bit: impl Fn(usize) -> u8) {
    for column in 0..BLOCK {
        let place = 4 * row + column % 4;
        let mask = &mut bits[column / 4];
        *mask = *mask & !(1 << place) | u64::from(bit(column)) << place;
    }
}
