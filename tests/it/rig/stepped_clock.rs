//! A wall clock of one process that the test sets, by a preloaded library.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The clock; steps reach the process at once.
pub struct SteppedClock {
    library: PathBuf,
    file: PathBuf,
}

impl SteppedClock {
    /// Compiles the library into the folder.
    pub fn new(dir: &TempDir) -> Self {
        let at = |name: &str| dir.path().join(name);
        let (library, file) = (at("clock_step.so"), at("clock"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/clock_step.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(compiler.status().unwrap().success());
        let clock = Self { library, file };
        clock.step_to(0);
        clock
    }

    /// Sets the clock this far from the machine's, seconds.
    pub fn step_to(&self, seconds: i64) {
        // In place: the process has the file mapped, and reading beyond its end would kill it.
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&self.file).unwrap();
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Lets the command live by this clock.
    pub fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("WATTGATE_TEST_CLOCK", &self.file);
    }
}
