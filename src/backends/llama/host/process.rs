//! One engine process and the socket to it: start and exit. Does not read or write the socket.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Time for a process to exit after its socket is closed, before it is killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// libgomp's spins between two batches before a computing thread sleeps: some microseconds. Within
/// a batch its threads wait in `openmp_barrier`.
const SPINS: &str = "500";

/// A running engine process.
#[derive(Debug)]
pub(super) struct EngineProcess {
    child: Child,
    pub(super) pid: u32,
}

/// The end of a process that failed.
#[derive(Debug)]
pub(super) struct Ended {
    /// For the log.
    pub(super) status: String,
    /// It ended by its own fault: it was not killed.
    pub(super) crashed: bool,
}

impl EngineProcess {
    /// Starts `<binary> engine --model <name>` with one end of a socket pair as its standard input;
    /// returns the other end.
    pub(super) fn spawn(binary: &Path, model: &str, fake: bool) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new(binary)
            // Shown by `ps`.
            .args(["engine", "--model", model])
            .args(fake.then_some("--fake"))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_kept(name)))
            .env("OMP_WAIT_POLICY", "passive")
            .env("GOMP_SPINCOUNT", SPINS)
            // A group of its own: Ctrl-C signals the terminal's group, and the gateway drains
            // requests before it stops engines.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("process exited at once"))?;
        Ok((Self { child, pid }, UnixStream::from_std(ours)?))
    }

    /// Waits for a requested exit, and kills the process after a timeout. Returns a description for
    /// the log. A process that exits in time ends by its own signal.
    pub(super) async fn exit(mut self) -> String {
        match timeout(EXIT_TIMEOUT, self.child.wait()).await {
            Ok(Ok(_)) => "exited on request".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => match self.kill().await {
                Ok(_) => "did not exit in time; killed".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }

    /// As [`Self::exit`], for a process that failed.
    pub(super) async fn end(mut self) -> Ended {
        let status = match timeout(EXIT_TIMEOUT, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => self.kill().await,
        };
        match status {
            Ok(status) => {
                let killed = status.signal() == Some(Signal::KILL.as_raw());
                Ended { status: status.to_string(), crashed: !killed }
            }
            Err(error) => Ended { status: error.to_string(), crashed: false },
        }
    }

    /// Kills a process that does not exit.
    async fn kill(&mut self) -> io::Result<std::process::ExitStatus> {
        self.child.start_kill()?;
        self.child.wait().await
    }
}

/// Whether an engine gets this variable of the gateway. It parses untrusted files, so it gets what
/// its libraries read, and no key.
fn is_kept(name: &OsStr) -> bool {
    const NAMES: [&str; 9] = [
        "HOME",
        "LANG",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PATH",
        "TMPDIR",
        "TZ",
        "XDG_CACHE_HOME",
        "XDG_RUNTIME_DIR",
    ];
    const FAMILIES: [&str; 14] = [
        "CUDA_", "GGML_", "GOMP_", "HIP_", "HSA_", "KMP_", "LC_", "LLAMA_", "MALLOC_", "NVIDIA_",
        "OMP_", "ROCR_", "RUST_", "VK_",
    ];
    let Some(name) = name.to_str() else { return false };
    let is_secret = ["KEY", "TOKEN", "SECRET", "PASSWORD"].iter().any(|word| name.contains(word));
    let is_known = NAMES.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family));
    is_known && !is_secret
}

/// Resident memory of a process in bytes, with shared pages in full.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(u64::try_from(rustix::param::page_size()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_gets_what_its_libraries_read_and_no_key() {
        for (name, kept) in [
            ("CUDA_VISIBLE_DEVICES", true),
            ("OMP_NUM_THREADS", true),
            ("RUST_LOG", true),
            ("HOME", true),
            ("OPENAI_API_KEY", false),
            ("HF_TOKEN", false),
            ("LLAMA_API_KEY", false),
            ("NVIDIA_API_KEY", false),
            ("AWS_SECRET_ACCESS_KEY", false),
            ("SOMETHING", false),
        ] {
            assert_eq!(is_kept(OsStr::new(name)), kept, "{name}");
        }
    }
}
