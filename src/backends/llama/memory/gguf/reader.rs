//! Sequential reader of a GGUF header's values. Checks every length against the remaining bytes
//! before use; stores nothing that it skips.

use std::io::{self, Read};

use super::error::GgufError;

/// Maximum length of a key or string that is read; longer ones are skipped.
const TEXT_MAX: u64 = 1 << 10;
/// Maximum nesting of arrays, which do not occur in practice.
const DEPTH_MAX: u32 = 4;

/// A number, or the sum and maximum of one per layer.
#[derive(Clone, Copy, Default)]
pub(super) struct Total {
    pub(super) sum: u64,
    pub(super) most: u64,
    pub(super) per_layer: bool,
}

/// GGUF's ids of value types.
pub(super) const STRING: u32 = 8;
pub(super) const ARRAY: u32 = 9;
const FLOAT: u32 = 6;
const DOUBLE: u32 = 12;

/// Whether values of this type are floating-point numbers.
pub(super) fn is_float(kind: u32) -> bool {
    matches!(kind, FLOAT | DOUBLE)
}

/// Bytes of a value of a fixed size.
fn fixed_size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// Reader limited to a number of bytes.
pub(super) struct Reader<R> {
    source: io::Take<R>,
}

impl<R: Read> Reader<R> {
    /// Reads at most `most` bytes.
    pub(super) fn new(source: R, most: u64) -> Self {
        Self { source: source.take(most) }
    }

    /// Bytes that may still be read.
    pub(super) fn left(&self) -> u64 {
        self.source.limit()
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.source
            .read_exact(&mut bytes)
            .map_err(|_| GgufError::Broken("unexpected end of file"))?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), GgufError> {
        if bytes > self.source.limit() {
            return Err(GgufError::Broken("a length exceeds the file"));
        }
        let skipped = io::copy(&mut self.source.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(GgufError::Broken("unexpected end of file")) }
    }

    /// A string; `None` if it is longer than any relevant one.
    pub(super) fn text(&mut self) -> Result<Option<String>, GgufError> {
        let length = self.u64()?;
        if length > TEXT_MAX {
            self.skip(length)?;
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut bytes)?;
        Ok(String::from_utf8(bytes).ok())
    }

    pub(super) fn skip_value(&mut self, kind: u32, depth: u32) -> Result<(), GgufError> {
        match kind {
            STRING => {
                let length = self.u64()?;
                self.skip(length)
            }
            ARRAY if depth < DEPTH_MAX => {
                let (kind, count) = (self.u32()?, self.u64()?);
                self.skip_elements(kind, count, depth + 1)
            }
            kind => self.skip(fixed_size(kind).ok_or(GgufError::Broken("an unknown type"))?),
        }
    }

    fn skip_elements(&mut self, kind: u32, count: u64, depth: u32) -> Result<(), GgufError> {
        if let Some(size) = fixed_size(kind) {
            return self.skip(count.saturating_mul(size));
        }
        // Each element takes at least its length's bytes, so an excessive count reaches the end
        // soon.
        for _ in 0..count {
            self.skip_value(kind, depth)?;
        }
        Ok(())
    }

    /// Skips an array; returns its number of elements.
    pub(super) fn array(&mut self, kind: u32) -> Result<u64, GgufError> {
        if kind != ARRAY {
            return Err(GgufError::Broken("the vocabulary must be an array"));
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        self.skip_elements(kind, count, 1)?;
        Ok(count)
    }

    /// An integer, or an array of them.
    pub(super) fn total(&mut self, kind: u32) -> Result<Total, GgufError> {
        if kind != ARRAY {
            let value = self.whole(kind)?;
            return Ok(Total { sum: value, most: value, per_layer: false });
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        let mut total = Total { per_layer: true, ..Total::default() };
        for _ in 0..count {
            let value = self.whole(kind)?;
            total.sum = total.sum.saturating_add(value);
            total.most = total.most.max(value);
        }
        Ok(total)
    }

    /// A floating-point number.
    pub(super) fn float(&mut self, kind: u32) -> Result<f64, GgufError> {
        match kind {
            FLOAT => Ok(f32::from_le_bytes(self.bytes()?).into()),
            _ => Ok(f64::from_le_bytes(self.bytes()?)),
        }
    }

    fn whole(&mut self, kind: u32) -> Result<u64, GgufError> {
        match kind {
            0 => Ok(self.bytes::<1>()?[0].into()),
            2 => Ok(u16::from_le_bytes(self.bytes()?).into()),
            4 => Ok(self.u32()?.into()),
            5 => Ok(u64::try_from(i32::from_le_bytes(self.bytes()?)).unwrap_or(0)),
            10 => self.u64(),
            11 => Ok(u64::try_from(i64::from_le_bytes(self.bytes()?)).unwrap_or(0)),
            _ => Err(GgufError::Broken("a count must be an integer")),
        }
    }
}
