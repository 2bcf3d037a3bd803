//! Layouts of the types with 256 columns to a block ("K-quants"), whose blocks of 16 or 32 columns
//! have small integer scales. Pure.

use super::layout::{
    BLOCK, Block, Each, FifthBits, Fours, Nibbles, Values, half, set_fifth_bits, set_nibbles,
    split_halves,
};

/// Blocks of 32 columns in one of 256.
const STEPS: usize = 8;

/// `Q4_K`: weight = scale × `scales` × quant − least × `minima`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Q4K {
    /// f16.
    pub(super) scale: Each<u16>,
    /// f16.
    pub(super) least: Each<u16>,
    pub(super) scales: [Each<u8>; STEPS],
    pub(super) minima: [Each<u8>; STEPS],
    pub(super) nibbles: [Nibbles; STEPS],
}

/// `Q5_K`: as [`Q4K`], with a fifth bit.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Q5K {
    pub(super) low: Q4K,
    pub(super) fifth_bits: [FifthBits; STEPS],
}

/// `Q6_K`: weight = scale × `scales` × (quant − 32), with a scale for 16 columns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Q6K {
    /// f16.
    pub(super) scale: Each<u16>,
    pub(super) scales: [[Each<i8>; 2]; STEPS],
    pub(super) nibbles: [Nibbles; STEPS],
    /// The upper two bits: byte j of the i-th holds those of byte j of columns 16i to 16i + 15, the
    /// first four columns in its lowest bits.
    pub(super) upper: [[Fours; 2]; STEPS],
}

/// `IQ4_XS`: weight = scale × `scales` × (value of the quant in a table of sixteen).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Iq4Xs {
    /// f16.
    pub(super) scale: Each<u16>,
    pub(super) scales: [Each<i8>; STEPS],
    pub(super) nibbles: [Nibbles; STEPS],
}

impl Block for Q4K {
    type Vector = Values;
    const STEPS: usize = STEPS;
    const PLAIN_BYTES: usize = 144;

    fn set(&mut self, row: usize, plain: &[u8]) {
        self.set_with_quants(row, plain, &plain[16..]);
    }
}

impl Q4K {
    /// `plain` begins as blocks of `Q4_K` and `Q5_K` do: two f16, and twelve bytes of scales.
    fn set_with_quants(&mut self, row: usize, plain: &[u8], quants: &[u8]) {
        (self.scale[row], self.least[row]) = (half(plain, 0), half(plain, 2));
        for step in 0..STEPS {
            let (scale, minimum) = six_bits(&plain[4..16], step);
            (self.scales[step][row], self.minima[step][row]) = (scale, minimum);
            set_nibbles(&mut self.nibbles[step], row, |column| {
                quants[step / 2 * BLOCK + column] >> (step % 2 * 4) & 15
            });
        }
    }
}

impl Block for Q5K {
    type Vector = Values;
    const STEPS: usize = STEPS;
    const PLAIN_BYTES: usize = 176;

    fn set(&mut self, row: usize, plain: &[u8]) {
        self.low.set_with_quants(row, plain, &plain[48..]);
        for (step, bits) in self.fifth_bits.iter_mut().enumerate() {
            set_fifth_bits(bits, row, |column| plain[16 + column] >> step & 1);
        }
    }
}

impl Block for Q6K {
    type Vector = Values;
    const STEPS: usize = STEPS;
    const PLAIN_BYTES: usize = 210;

    fn set(&mut self, row: usize, plain: &[u8]) {
        let (low, rest) = plain.split_at(128);
        let (high, rest) = rest.split_at(64);
        self.scale[row] = half(rest, 16);
        for step in 0..STEPS {
            // Of each 128 columns, the first and third 32 share bytes, and the second and fourth.
            let (part, quarter) = (step / 4, step % 4);
            for (half, scales) in self.scales[step].iter_mut().enumerate() {
                scales[row] = rest[2 * step + half].cast_signed();
            }
            set_nibbles(&mut self.nibbles[step], row, |column| {
                low[64 * part + quarter % 2 * BLOCK + column] >> (quarter / 2 * 4) & 15
            });
            for column in 0..BLOCK {
                let bits = high[BLOCK * part + column] >> (2 * quarter) & 3;
                let shift = column % 16 / 4 * 2;
                let byte = &mut self.upper[step][column / 16][4 * row + column % 4];
                *byte = *byte & !(3 << shift) | bits << shift;
            }
        }
    }
}

impl Block for Iq4Xs {
    type Vector = Values;
    const STEPS: usize = STEPS;
    const PLAIN_BYTES: usize = 136;

    fn set(&mut self, row: usize, plain: &[u8]) {
        self.scale[row] = half(plain, 0);
        let upper = half(plain, 2);
        for step in 0..STEPS {
            let low = plain[4 + step / 2] >> (step % 2 * 4) & 15;
            let bits = (upper >> (2 * step) & 3).to_le_bytes()[0];
            self.scales[step][row] = (low | bits << 4).cast_signed() - 32;
            let quants = &plain[8 + 16 * step..][..16];
            set_nibbles(&mut self.nibbles[step], row, |column| split_halves(quants, column));
        }
    }
}

/// Scale and minimum of a block of 32 columns, six bits each, of which eight pairs are in twelve
/// bytes: the upper two bits of the last four pairs are in the bytes of the first four.
fn six_bits(packed: &[u8], step: usize) -> (u8, u8) {
    if step < 4 {
        return (packed[step] & 63, packed[step + 4] & 63);
    }
    let low = packed[step + 4];
    (low & 15 | packed[step - 4] >> 6 << 4, low >> 4 | packed[step] >> 6 << 4)
}
