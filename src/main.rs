//! The `wattgate` binary: parses nothing and decides nothing; `wattgate::cli` does.

fn main() {}
