//! Threads that serve connections, each with a runtime of its own.
//!
//! A connection stays on its thread, as do the connections to upstreams that its requests open. So
//! nothing of a request wakes another thread or is fetched from one, which would cost as much as
//! half of what the gateway does with it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Most threads: each keeps connections to upstreams of its own.
const THREADS_MAX: usize = 32;

/// Most large requests of one thread that are read at once, on threads of their own.
const BLOCKING_MAX: usize = 16;

/// The threads of a server. They end when it is dropped.
pub struct ServingThreads {
    first: ServingThread,
    others: Vec<ServingThread>,
}

struct ServingThread {
    runtime: Handle,
    /// One reference more than it has connections.
    connections: Arc<()>,
    /// Ends the thread when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ServingThreads {
    /// Starts one for each core.
    pub fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let others =
            (1..cores.min(THREADS_MAX)).map(ServingThread::start).collect::<io::Result<_>>()?;
        Ok(Self { first: ServingThread::start(0)?, others })
    }

    /// The runtime of each.
    pub fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        std::iter::once(&self.first).chain(&self.others).map(|thread| &thread.runtime)
    }

    /// Serves a connection on the thread that has the fewest.
    pub(super) fn spawn<'t>(
        &'t self,
        connection: impl Future<Output = ()> + Send + 'static,
        tasks: &mut JoinSet<()>,
    ) {
        let idler = |one: &'t ServingThread, other: &'t ServingThread| {
            if other.open() < one.open() { other } else { one }
        };
        let thread = self.others.iter().fold(&self.first, idler);
        let one = Arc::clone(&thread.connections);
        let counted = async move {
            connection.await;
            drop(one);
        };
        tasks.spawn_on(counted, &thread.runtime);
    }
}

impl ServingThread {
    fn start(number: usize) -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(BLOCKING_MAX).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            // Nothing is ever sent.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new().name(format!("serve-{number}")).spawn(serve)?;
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self { runtime: handle, connections: Arc::new(()), stop, thread })
    }

    fn open(&self) -> usize {
        Arc::strong_count(&self.connections) - 1
    }
}

impl Drop for ServingThread {
    /// Blocks until the thread has ended.
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread that serves connections panicked");
        }
    }
}
