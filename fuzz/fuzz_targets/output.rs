//! Output of local models: text, reasoning, calls and stop strings do not depend on how tokens cut
//! it. The first byte says how it is read.

#![no_main]
#![cfg(fuzzing)]

use libfuzzer_sys::fuzz_target;
use wattgate::backends::llama::fuzzing::{Output, Reading, TOOLS, output};
use wattgate::backends::llama::wire::piece::Piece;
use wattgate_fuzz::pieces;

fuzz_target!(|input: &[u8]| {
    let [first, second, answer @ ..] = input else { return };
    let bit = |at: u32| second >> at & 1 == 1;
    let reading = Reading {
        calls: usize::from(first % 6),
        reasoning: usize::from(first / 6 % 3),
        reasons_already: bit(0),
        parallel: bit(1),
        stops: bit(2),
        cut: bit(3),
    };
    let whole = output(reading, [answer]);
    check(reading, answer, &whole);
    for cut in [output(reading, answer.chunks(1)), output(reading, pieces(answer))] {
        check(reading, answer, &cut);
        assert_eq!((&cut.pieces, cut.reason), (&whole.pieces, whole.reason), "{reading:?}");
    }
});

fn check(reading: Reading, answer: &[u8], output: &Output) {
    let answer = String::from_utf8_lossy(answer);
    let mut calls = 0;
    for piece in &output.pieces {
        match piece {
            Piece::Text(text) | Piece::Reasoning(text) => assert!(!text.is_empty()),
            Piece::Call { index, name } => {
                assert_eq!(*index, calls);
                assert!(TOOLS.contains(&name.as_str()));
                calls += 1;
            }
            Piece::Arguments { index, text } => {
                assert_eq!(*index + 1, calls);
                assert!(!text.is_empty());
            }
        }
    }
    if output.plain && !reading.stops {
        let text: Vec<Piece> = Some(answer.into_owned())
            .filter(|text| !text.is_empty())
            .map(Piece::Text)
            .into_iter()
            .collect();
        assert_eq!(output.pieces, text);
    }
}
