//! The `wattgate` binary: parses nothing and decides nothing; `wattgate::cli` does.

use std::process::ExitCode;

fn main() -> ExitCode {
    wattgate::cli::main()
}
