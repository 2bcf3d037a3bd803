//! Expansion of ranges in names: `part{1..4}` names the four parts of one file.
//!
//! Pure: works on text and does not know what is named.

/// A larger count is a mistyped number.
const PARTS_MAX: u64 = 999;

/// Why a range cannot be expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("a range is two numbers, the first one smaller, as in `{{1..4}}`")]
    Form,
    #[error("its ranges are not equally long")]
    Unequal,
    #[error("that is too many parts")]
    TooMany,
}

/// A fixed or a counted piece of a name.
enum Piece<'t> {
    Fixed(&'t str),
    /// The first number, and its number of digits if it starts with a zero: `{00..12}` counts 00,
    /// 01, 02.
    Counted {
        first: u64,
        digits: usize,
    },
}

/// Returns the texts with the first number of each range, then with the second, and so on. Without
/// ranges, returns them once.
pub(super) fn expand(texts: &[&str]) -> Result<Vec<Vec<String>>, RangeError> {
    let mut count = None;
    let cut: Vec<Vec<Piece<'_>>> =
        texts.iter().map(|text| pieces(text, &mut count)).collect::<Result<_, _>>()?;
    let written = |step: u64| cut.iter().map(|pieces| write(pieces, step)).collect();
    Ok((0..count.unwrap_or(1)).map(written).collect())
}

fn pieces<'t>(mut text: &'t str, count: &mut Option<u64>) -> Result<Vec<Piece<'t>>, RangeError> {
    let mut pieces = Vec::new();
    while let Some((before, after)) = text.split_once('{') {
        let (range, rest) = after.split_once('}').ok_or(RangeError::Form)?;
        let (first, last) = range.split_once("..").ok_or(RangeError::Form)?;
        let digits = if first.starts_with('0') { first.len() } else { 0 };
        let (first, last) = (number(first)?, number(last)?);
        let length = last.checked_sub(first).filter(|&more| more > 0).ok_or(RangeError::Form)? + 1;
        if length > PARTS_MAX {
            return Err(RangeError::TooMany);
        }
        if *count.get_or_insert(length) != length {
            return Err(RangeError::Unequal);
        }
        pieces.extend([Piece::Fixed(before), Piece::Counted { first, digits }]);
        text = rest;
    }
    if text.contains('}') {
        return Err(RangeError::Form);
    }
    pieces.push(Piece::Fixed(text));
    Ok(pieces)
}

/// At most nine digits, so that sums do not overflow.
fn number(text: &str) -> Result<u64, RangeError> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().map_err(|_| RangeError::Form) } else { Err(RangeError::Form) }
}

fn write(pieces: &[Piece<'_>], step: u64) -> String {
    let text = |piece: &Piece<'_>| match piece {
        Piece::Fixed(text) => (*text).to_owned(),
        Piece::Counted { first, digits } => format!("{:0digits$}", first + step),
    };
    pieces.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_together() {
        let expanded = expand(&["a{1..3}", "b", "{8..10}-{08..10}"]).unwrap();
        assert_eq!(
            expanded,
            [["a1", "b", "8-08"], ["a2", "b", "9-09"], ["a3", "b", "10-10"]]
                .map(|t| t.map(str::to_owned).to_vec())
        );
        assert_eq!(expand(&["a", "b"]).unwrap(), [["a".to_owned(), "b".to_owned()]]);
    }

    #[test]
    fn each_mistake_is_its_own_error() {
        for (text, error) in [
            ("a{1..3", RangeError::Form),
            ("a1..3}", RangeError::Form),
            ("a{}", RangeError::Form),
            ("a{1,2}", RangeError::Form),
            ("a{3..1}", RangeError::Form),
            ("a{2..2}", RangeError::Form),
            ("a{+1..3}", RangeError::Form),
            ("a{1..99999999999999999999}", RangeError::Form),
            ("a{1..3}{1..4}", RangeError::Unequal),
            ("a{1..5000}", RangeError::TooMany),
        ] {
            assert_eq!(expand(&[text]), Err(error), "{text}");
        }
    }
}
