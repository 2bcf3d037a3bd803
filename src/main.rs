//! Entry point of the `wattgate` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    wattgate::cli::main()
}
