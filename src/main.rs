//! The `wattgate` binary.

fn main() {}
