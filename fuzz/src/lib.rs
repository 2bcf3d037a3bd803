//! What several fuzz targets share: inputs cut into pieces.

/// The input in pieces of 1 to 16 bytes. Where it is cut follows from its content, so that an input
/// always gives the same pieces.
pub fn pieces(input: &[u8]) -> Vec<&[u8]> {
    let mut state = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let (mut pieces, mut rest) = (Vec::new(), input);
    while !rest.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (piece, after) = rest.split_at(((state >> 60) as usize + 1).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
