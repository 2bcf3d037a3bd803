//! Work on the bytes of large requests, which must not hold up the threads that serve.

use tokio::task::spawn_blocking;

/// Most bytes that are parsed, planned and copied where they are: a few milliseconds' work.
const INLINE_BYTES_MAX: usize = 256 << 10;

pub fn is_large(bytes: usize) -> bool {
    bytes > INLINE_BYTES_MAX
}

/// Runs `work` on so many bytes, on another thread if they are many; `None` if it panicked.
pub async fn run<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if is_large(bytes) { spawn_blocking(work).await.ok() } else { Some(work()) }
}
