//! Progress of a pull: a bar on a terminal, plain lines anywhere else.
//!
//! Neither reads nor writes model files.

use std::io::{self, IsTerminal, Write};
use std::process::Stdio;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Output of progress. One value follows one pull from start to end.
pub struct Progress {
    out: Out,
    /// Label, bytes done and total of the running step, for plain lines.
    step: Step,
}

enum Out {
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
    Silent,
}

#[derive(Default)]
struct Step {
    label: String,
    done_bytes: u64,
    total_bytes: u64,
    /// Tenths of the total that were reported.
    tenths: u64,
}

impl Progress {
    /// A bar if standard error is a terminal, else plain lines on standard error.
    pub fn on_stderr() -> Self {
        if io::stderr().is_terminal() {
            Self::new(Out::Bar(ProgressBar::hidden()))
        } else {
            Self::lines(io::stderr())
        }
    }

    /// Plain lines to `out`: one for the start of a step and one for each tenth of it.
    pub fn lines(out: impl Write + Send + 'static) -> Self {
        Self::new(Out::Lines(Box::new(out)))
    }

    pub fn silent() -> Self {
        Self::new(Out::Silent)
    }

    fn new(out: Out) -> Self {
        Self { out, step: Step::default() }
    }

    /// Prints a line of its own.
    pub fn note(&mut self, message: &str) {
        match &mut self.out {
            Out::Bar(bar) => bar.suspend(|| write_line(&mut io::stderr(), message)),
            Out::Lines(out) => write_line(out, message),
            Out::Silent => {}
        }
    }

    /// Starts a step of `total_bytes` and ends the one before.
    pub fn begin(&mut self, label: &str, total_bytes: u64) {
        self.end();
        self.step = Step { label: label.to_owned(), total_bytes, ..Step::default() };
        match &mut self.out {
            Out::Bar(bar) => *bar = new_bar(label, total_bytes),
            Out::Lines(out) => write_line(out, &format!("{label}: {}", HumanBytes(total_bytes))),
            Out::Silent => {}
        }
    }

    /// Adds `bytes` to the current step.
    pub fn advance(&mut self, bytes: u64) {
        self.step.done_bytes += bytes;
        match &mut self.out {
            Out::Bar(bar) => bar.inc(bytes),
            Out::Lines(out) => {
                if let Some(percent) = self.step.next_percent() {
                    write_line(out, &format!("{}: {percent} %", self.step.label));
                }
            }
            Out::Silent => {}
        }
    }

    /// Ends the current step and removes its bar.
    pub fn end(&mut self) {
        if let Out::Bar(bar) = &self.out {
            bar.finish_and_clear();
        }
    }

    /// Standard output for a child process. Never our own, which is for results.
    pub fn for_child(&self) -> Stdio {
        match self.out {
            Out::Silent => Stdio::null(),
            Out::Bar(_) | Out::Lines(_) => Stdio::from(io::stderr()),
        }
    }
}

impl Step {
    /// The percentage to report, if another tenth has passed since the last report.
    fn next_percent(&mut self) -> Option<u64> {
        let tenths = self.done_bytes.saturating_mul(10).checked_div(self.total_bytes)?.min(10);
        (tenths > self.tenths).then(|| {
            self.tenths = tenths;
            tenths * 10
        })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn new_bar(label: &str, total_bytes: u64) -> ProgressBar {
    let template = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total_bytes)
        .with_style(style.progress_chars("=> "))
        .with_message(label.to_owned())
}

/// Ignores errors: a pull goes on without its progress.
fn write_line(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn plain_lines_report_each_tenth_once() {
        let out = Shared::default();
        let mut progress = Progress::lines(out.clone());
        progress.begin("unpacking m.gguf", 1000);
        for bytes in [50, 49, 1, 250, 650] {
            progress.advance(bytes);
        }
        progress.note("done");
        let shown = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        insta::assert_snapshot!(shown, @r"
        unpacking m.gguf: 1000 B
        unpacking m.gguf: 10 %
        unpacking m.gguf: 30 %
        unpacking m.gguf: 100 %
        done
        ");
    }

    #[test]
    fn an_empty_step_reports_nothing_more() {
        let out = Shared::default();
        let mut progress = Progress::lines(out.clone());
        progress.begin("empty", 0);
        progress.advance(0);
        assert_eq!(out.0.lock().unwrap().as_slice(), b"empty: 0 B\n");
    }
}
