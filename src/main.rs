//! Entry point of the `wattgate` binary.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// The allocations of a request are many and small: with glibc's allocator it takes 7 % more CPU
/// time, for 4 MiB less.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    wattgate::cli::main()
}
