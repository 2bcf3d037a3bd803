//! Helper processes of an engine: started when needed, killed when a task takes too long, is
//! cancelled or takes too much memory.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::wire::{Order, Rendering, Report, Setup, Task, Trial};
use crate::backends::llama::engine::intake::interrupt::{Interrupt, Stopped};
use crate::backends::llama::wire::protocol;

/// Time between two looks at the interrupt.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Time for a report that has begun to arrive, and for a task to be taken.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time on the clock for each unit of CPU time, on a machine that is loaded as much as one can be.
const WALL_PER_CPU: u32 = 10;

/// Helpers of a kind kept between tasks.
const IDLE_MAX: usize = 2;

/// Why a task has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("it takes too long")]
    TooLong,
    #[error("it takes too much memory")]
    Died,
    #[error("the helper process could not be started: {0}")]
    Start(io::Error),
}

/// The helpers of one engine.
pub(crate) struct HelperPool {
    setup: Setup,
    /// Those that render and those that try out, which have a lower priority.
    idle: Mutex<[Vec<Helper>; 2]>,
}

struct Helper {
    child: Child,
    socket: UnixStream,
}

impl HelperPool {
    pub(crate) fn new(setup: Setup) -> Self {
        Self { setup, idle: Mutex::default() }
    }

    /// The prompt, or the template's error message.
    pub(crate) fn render(
        &self,
        rendering: Rendering,
        cpu_max: Duration,
        interrupt: &Interrupt,
    ) -> Result<Result<String, String>, HelperError> {
        match self.run(Task::Render(rendering), cpu_max, interrupt)? {
            Report::Rendered(rendered) => Ok(rendered),
            Report::Tried | Report::TooLong => Err(HelperError::Died),
        }
    }

    /// Returns if compiling ends within this CPU time.
    pub(crate) fn try_out(
        &self,
        trial: Trial,
        cpu_max: Duration,
        interrupt: &Interrupt,
    ) -> Result<(), HelperError> {
        self.run(Task::Try(trial), cpu_max, interrupt).map(drop)
    }

    fn run(
        &self,
        task: Task,
        cpu_max: Duration,
        interrupt: &Interrupt,
    ) -> Result<Report, HelperError> {
        interrupt.check()?;
        let kind = usize::from(matches!(task, Task::Try(_)));
        let order = Order { task, cpu_max };
        let idle = self.idle.lock()[kind].pop();
        let mut helper = match idle {
            Some(helper) => helper,
            None => Helper::start(&self.setup)?,
        };
        // On an error the helper is dropped, which kills it.
        let report = helper.run(&order, interrupt)?;
        let idle = &mut self.idle.lock()[kind];
        if idle.len() < IDLE_MAX {
            idle.push(helper);
        }
        Ok(report)
    }
}

impl Helper {
    fn start(setup: &Setup) -> Result<Self, HelperError> {
        let (socket, theirs) = UnixStream::pair().map_err(HelperError::Start)?;
        socket.set_read_timeout(Some(TRANSFER_TIMEOUT)).map_err(HelperError::Start)?;
        socket.set_write_timeout(Some(TRANSFER_TIMEOUT)).map_err(HelperError::Start)?;
        let child = Command::new(own_binary().map_err(HelperError::Start)?)
            .args(["engine", "--model", "helper", "--helper"])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // It could only say that its memory is exhausted.
            .stderr(Stdio::null())
            .spawn()
            .map_err(HelperError::Start)?;
        let mut helper = Self { child, socket };
        protocol::write_frame(&mut helper.socket, setup).map_err(|_| HelperError::Died)?;
        Ok(helper)
    }

    fn run(&mut self, order: &Order, interrupt: &Interrupt) -> Result<Report, HelperError> {
        // A process that sleeps uses no CPU time.
        let until = Instant::now() + order.cpu_max * WALL_PER_CPU;
        protocol::write_frame(&mut self.socket, order).map_err(|_| HelperError::Died)?;
        while !self.has_report() {
            interrupt.check()?;
            if Instant::now() >= until {
                return Err(HelperError::TooLong);
            }
        }
        match protocol::read_frame(&mut self.socket) {
            Ok(Some(Report::TooLong)) => Err(HelperError::TooLong),
            Ok(Some(report)) => Ok(report),
            Ok(None) | Err(_) => Err(HelperError::Died),
        }
    }

    /// Waits for a report or the end of the process, a moment at most.
    fn has_report(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut socket, Some(&POLL)).is_ok_and(|ready| ready > 0)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// This program, even if the file has been replaced meanwhile.
fn own_binary() -> io::Result<std::path::PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}
