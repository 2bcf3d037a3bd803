//! Output and questions of the command line: results on standard output, everything else on
//! standard error.

use std::io::{self, Write};

use super::exit::{BAD_INPUT, FAILED};

/// Prints a result.
#[expect(clippy::print_stdout, reason = "results of commands go to standard output")]
pub(super) fn say(text: &str) {
    println!("{text}");
}

/// Prints what is not a result.
#[expect(clippy::print_stderr, reason = "notes and errors of commands go to standard error")]
pub(super) fn note(text: &str) {
    eprintln!("{text}");
}

/// Prints why the input cannot be used, and returns the exit code for that.
pub(super) fn refuse(why: &str) -> u8 {
    note(&format!("error: {why}"));
    BAD_INPUT
}

/// Prints why the work could not be done, and returns the exit code for that.
pub(super) fn fail(why: &str) -> u8 {
    note(&format!("error: {why}"));
    FAILED
}

/// Asks at the terminal; an empty answer is `default`, the end of input is no.
pub(super) fn confirm(question: &str, default: bool) -> io::Result<bool> {
    let mut screen = io::stderr();
    write!(screen, "{question} [{}] ", if default { "Y/n" } else { "y/N" })?;
    screen.flush()?;
    let mut answer = String::new();
    let end_of_input = io::stdin().read_line(&mut answer)? == 0;
    Ok(match answer.trim().to_ascii_lowercase().as_str() {
        "" => default && !end_of_input,
        answer => matches!(answer, "y" | "yes"),
    })
}
