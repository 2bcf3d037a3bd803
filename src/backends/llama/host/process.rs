//! One engine process and the socket to it. Starts and ends it; knows nothing of what is said over the socket.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a process may take to notice that its socket is closed before it is killed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Looks for work between two batches before a computing thread sleeps, for libgomp: some microseconds. How its threads
/// wait within a batch is `barrier.rs`'s matter.
const SPINS: &str = "500";

/// A running engine process.
#[derive(Debug)]
pub(super) struct EngineProcess {
    child: Child,
    pub(super) pid: u32,
}

impl EngineProcess {
    /// Starts `<binary> engine --model <name>` with one end of a socket pair as its standard input; the other end is returned.
    pub(super) fn spawn(binary: &Path, model: &str) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new(binary)
            // The name is for people who look at `ps`.
            .args(["engine", "--model", model])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .env("OMP_WAIT_POLICY", "passive")
            .env("GOMP_SPINCOUNT", SPINS)
            // Ctrl-C at the terminal reaches the whole group: the gateway drains its requests first.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended at once"))?;
        Ok((Self { child, pid }, UnixStream::from_std(ours)?))
    }

    /// As [`Self::end`], for a process that was told to go: one that leaves in time leaves by its own signal.
    pub(super) async fn leave(mut self) -> String {
        match timeout(LEAVE_TIMEOUT, self.child.wait()).await {
            Ok(Ok(_)) => "it left as it was told".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => match self.kill().await {
                Ok(_) => "it did not leave in time and was killed".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }

    /// Waits for the process to leave, which it does as soon as our end of the socket is dropped; kills it if not.
    /// Returns how it ended, for the log.
    pub(super) async fn end(mut self) -> String {
        let status = match timeout(LEAVE_TIMEOUT, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => self.kill().await,
        };
        status.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    /// For a process that no longer listens.
    pub(super) async fn kill(&mut self) -> io::Result<std::process::ExitStatus> {
        self.child.start_kill()?;
        self.child.wait().await
    }
}

/// Bytes of a process that are in memory now; shared pages count in full.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(u64::try_from(rustix::param::page_size()).ok()?))
}
