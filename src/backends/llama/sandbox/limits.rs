//! Limits of an engine process and of its helpers on memory, descriptors and life.

use std::io;
use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit, getppid, setrlimit};

/// Descriptors: sockets, model files, and what the libraries open for a moment.
const DESCRIPTORS_MAX: u64 = 128;

/// A process that began without its gateway: that has ended meanwhile.
const ORPHANED: &str = "the process that started this one has ended";

/// Bounds an engine. `parent` is the socket to its gateway.
pub fn of_engine(parent: impl AsFd) -> io::Result<()> {
    die_with_parent(parent)?;
    forbid_new_privileges()?;
    set(Resource::Core, 0)?;
    set(Resource::Nofile, DESCRIPTORS_MAX)
}

/// Bounds a helper of an engine, which `parent` is the socket to.
pub fn of_helper(parent: impl AsFd, data_bytes_max: u64) -> io::Result<()> {
    of_engine(parent)?;
    bound_data(data_bytes_max)
}

/// Lets answers under way go first. A kernel that refuses loses nothing but that.
pub fn yield_to_others() {
    let _refused = rustix::process::nice(10);
}

/// Bounds the memory that a process allocates, without the files that it maps. Beyond it,
/// allocations fail, which ends the process.
pub fn bound_data(bytes_max: u64) -> io::Result<()> {
    set(Resource::Data, bytes_max)
}

/// Lowers a limit for good.
fn set(resource: Resource, most: u64) -> io::Result<()> {
    let most = rustix::process::getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// The kernel kills this process when the thread that started it ends, in whatever state either of
/// them is.
#[cfg(target_os = "linux")]
fn die_with_parent(parent: impl AsFd) -> io::Result<()> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the call.
    let started_by = rustix::net::sockopt::socket_peercred(parent)?.pid;
    if getppid() == Some(started_by) { Ok(()) } else { Err(io::Error::other(ORPHANED)) }
}

/// Elsewhere the closed socket ends it.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: impl AsFd) -> io::Result<()> {
    if getppid().is_some() { Ok(()) } else { Err(io::Error::other(ORPHANED)) }
}

#[cfg(target_os = "linux")]
fn forbid_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

#[cfg(not(target_os = "linux"))]
fn forbid_new_privileges() -> io::Result<()> {
    Ok(())
}
