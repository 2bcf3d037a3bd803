//! Barrier between the computing threads of a step, which meet hundreds of times per step.
//!
//! Replaces GNU OpenMP's `GOMP_barrier`, which spins either for a fixed number of times or never.
//! On two idle cores spinning doubled the tokens/s against sleeping. On two cores with ten other
//! busy processes it left 6 of 70: a spinning thread loses its scheduling priority, and waits for a
//! thread without a core. So this barrier spins until a wait takes longer than any on an idle
//! machine, and then sleeps at once for a while before it spins again.
//!
//! Supports one team of threads: an engine evaluates one batch at a time.

#![expect(unsafe_code, reason = "C calls the barrier and returns the size of the team")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::{hint, mem, ptr};

use rustix::thread::futex;

use crate::units::MonotonicNs;

/// A longer wait is for a thread without a core. A thread's other work, such as sending a token, is
/// shorter.
const SPIN_TIMEOUT_NS: u64 = 1_000_000;

/// Duration of the backoff, in which waits sleep at once: initially, and at most when timeouts
/// follow each other.
const BACKOFF_MIN_NS: u64 = 5_000_000;
const BACKOFF_MAX_NS: u64 = 1_000_000_000;

/// Spins between two readings of the clock.
const SPINS: usize = 32;

static BARRIER: Barrier = Barrier::new();

unsafe extern "C" {
    fn omp_get_num_threads() -> c_int;
    fn dlsym(library: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

const NAME: &CStr = c"GOMP_barrier";

/// libgomp's barrier, if it is to be used instead.
static LIBRARY_BARRIER: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Compilers emit calls of this for `#pragma omp barrier`.
#[unsafe(no_mangle)]
extern "C" fn GOMP_barrier() {
    let library = LIBRARY_BARRIER.load(Ordering::Relaxed);
    if !library.is_null() {
        // SAFETY: the symbol of libgomp, which has this type.
        let barrier = unsafe { mem::transmute::<*mut c_void, extern "C" fn()>(library) };
        return barrier();
    }
    // SAFETY: reads the size of the calling thread's team.
    let team = unsafe { omp_get_num_threads() };
    BARRIER.wait(u32::try_from(team).unwrap_or(1));
}

/// Selects this barrier, or the library's that it shadows. Call before threads compute.
pub(crate) fn install(own: bool) {
    // Keeps the linker from choosing the library's barrier.
    hint::black_box(GOMP_barrier as extern "C" fn());
    if !own {
        let next = ptr::without_provenance_mut(RTLD_NEXT);
        // SAFETY: looks up a symbol by a terminated name.
        LIBRARY_BARRIER.store(unsafe { dlsym(next, NAME.as_ptr()) }, Ordering::Relaxed);
    }
}

/// Searches the libraries after the program itself; the same on glibc and musl.
const RTLD_NEXT: usize = usize::MAX;

/// A reusable barrier for the threads of one team.
struct Barrier {
    arrived: AtomicU32,
    /// Number of completed rounds; the futex word.
    generation: AtomicU32,
    waiters: AtomicU32,
    /// End of the backoff.
    backoff_end: AtomicU64,
    backoff_ns: AtomicU64,
}

impl Barrier {
    const fn new() -> Self {
        Self {
            arrived: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            waiters: AtomicU32::new(0),
            backoff_end: AtomicU64::new(0),
            backoff_ns: AtomicU64::new(BACKOFF_MIN_NS),
        }
    }

    /// Blocks until `team` threads have called it.
    fn wait(&self, team: u32) {
        let round = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 >= team {
            self.arrived.store(0, Ordering::Relaxed);
            // Total order with waiters: either they see the new generation, or this thread sees
            // them.
            self.generation.store(round.wrapping_add(1), Ordering::SeqCst);
            if self.waiters.load(Ordering::SeqCst) > 0 {
                // A failed wake-up leaves no thread asleep: the futex word has changed.
                let _woken = futex::wake(&self.generation, futex::Flags::PRIVATE, u32::MAX >> 1);
            }
        } else if !self.spin(round) {
            self.sleep(round);
        }
    }

    /// Spins until the round completes; false on timeout.
    fn spin(&self, round: u32) -> bool {
        let start = MonotonicNs::now().0;
        if start < self.backoff_end.load(Ordering::Relaxed) {
            return self.has_passed(round);
        }
        loop {
            for _ in 0..SPINS {
                if self.has_passed(round) {
                    return true;
                }
                hint::spin_loop();
            }
            let now = MonotonicNs::now().0;
            if now - start > SPIN_TIMEOUT_NS {
                self.enter_backoff(now);
                return false;
            }
        }
    }

    fn has_passed(&self, round: u32) -> bool {
        self.generation.load(Ordering::Acquire) != round
    }

    /// Starts a backoff: longer, the shorter the quiet time since the last one.
    fn enter_backoff(&self, now: u64) {
        let backoff = self.backoff_ns.load(Ordering::Relaxed);
        let quiet_time = now.saturating_sub(self.backoff_end.load(Ordering::Relaxed));
        let backoff = if quiet_time > 2 * backoff {
            BACKOFF_MIN_NS
        } else {
            (2 * backoff).min(BACKOFF_MAX_NS)
        };
        self.backoff_ns.store(backoff, Ordering::Relaxed);
        self.backoff_end.store(now + backoff, Ordering::Relaxed);
    }

    fn sleep(&self, round: u32) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        while self.generation.load(Ordering::SeqCst) == round {
            // The loop checks the condition again after interrupts.
            let _slept = futex::wait(&self.generation, futex::Flags::PRIVATE, round, None);
        }
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Threads that add to a shared number between rounds and see the whole sum after each.
    fn run_rounds(barrier: &Barrier, team: u32, rounds: u32) {
        let sum = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..team {
                scope.spawn(|| {
                    for round in 1..=rounds {
                        sum.fetch_add(1, Ordering::Relaxed);
                        barrier.wait(team);
                        assert_eq!(sum.load(Ordering::Relaxed), round * team);
                        barrier.wait(team);
                    }
                });
            }
        });
    }

    #[test]
    fn no_thread_passes_before_all_have_arrived() {
        let barrier = Barrier::new();
        for team in [1, 2, 3, 8] {
            run_rounds(&barrier, team, 300);
        }
    }

    #[test]
    fn no_thread_passes_before_all_have_arrived_when_all_sleep() {
        let barrier = Barrier::new();
        barrier.backoff_end.store(u64::MAX, Ordering::Relaxed);
        run_rounds(&barrier, 4, 300);
    }

    #[test]
    fn backoff_grows_with_repeated_timeouts_and_resets_after_quiet_time() {
        let barrier = Barrier::new();
        let mut now = 1_000 * BACKOFF_MAX_NS;
        let mut backoff = |quiet_ns: u64| {
            now = now.max(barrier.backoff_end.load(Ordering::Relaxed)) + quiet_ns;
            barrier.enter_backoff(now);
            barrier.backoff_end.load(Ordering::Relaxed) - now
        };
        assert_eq!(backoff(0), BACKOFF_MIN_NS);
        assert_eq!((backoff(1), backoff(1)), (2 * BACKOFF_MIN_NS, 4 * BACKOFF_MIN_NS));
        (0..10).for_each(|_| assert!(backoff(1) <= BACKOFF_MAX_NS));
        assert_eq!(backoff(3 * BACKOFF_MAX_NS), BACKOFF_MIN_NS);
    }
}
