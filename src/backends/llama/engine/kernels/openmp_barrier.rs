//! Barrier between the computing threads of a step, which meet hundreds of times per step.
//!
//! Replaces GNU OpenMP's `GOMP_barrier`, which spins either for a fixed number of times or never.
//! On two idle cores spinning doubled the tokens/s against sleeping. On two cores with ten other
//! busy processes it left 6 of 70: a spinning thread loses its scheduling priority, and waits for a
//! thread without a core. So this barrier spins until a wait takes longer than any on an idle
//! machine, and then sleeps at once for a while before it spins again.
//!
//! Supports one team of threads: an engine evaluates one batch at a time.

#![expect(unsafe_code, reason = "C calls the barrier and tells the size of the team")]

use std::ffi::c_int;
use std::hint;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::thread::futex;

use crate::units::MonotonicNs;

/// A longer wait is for a thread without a core. A thread's other work, such as sending a token, is
/// shorter.
const PATIENCE_NS: u64 = 1_000_000;

/// Duration of the backoff, in which waits sleep at once: initially, and at most when timeouts
/// follow each other.
const PAUSE_FIRST_NS: u64 = 5_000_000;
const PAUSE_MOST_NS: u64 = 1_000_000_000;

/// Spins between two readings of the clock.
const LOOKS: usize = 32;

static BARRIER: Barrier = Barrier::new();

unsafe extern "C" {
    fn omp_get_num_threads() -> c_int;
}

/// Compilers emit calls of this for `#pragma omp barrier`.
#[unsafe(no_mangle)]
extern "C" fn GOMP_barrier() {
    // SAFETY: reads the size of the calling thread's team.
    let team = unsafe { omp_get_num_threads() };
    BARRIER.wait(u32::try_from(team).unwrap_or(1));
}

/// Keeps the linker from choosing the library's barrier.
pub(crate) fn install() {
    hint::black_box(GOMP_barrier as extern "C" fn());
}

/// A reusable barrier for the threads of one team.
struct Barrier {
    arrived: AtomicU32,
    /// Number of completed rounds; the futex word.
    meetings: AtomicU32,
    sleepers: AtomicU32,
    /// End of the backoff.
    sleep_until: AtomicU64,
    pause_ns: AtomicU64,
}

impl Barrier {
    const fn new() -> Self {
        Self {
            arrived: AtomicU32::new(0),
            meetings: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            sleep_until: AtomicU64::new(0),
            pause_ns: AtomicU64::new(PAUSE_FIRST_NS),
        }
    }

    /// Blocks until `team` threads have called it.
    fn wait(&self, team: u32) {
        let meeting = self.meetings.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 >= team {
            self.arrived.store(0, Ordering::Relaxed);
            // Total order with waiters: either they see the new generation, or this thread sees
            // them.
            self.meetings.store(meeting.wrapping_add(1), Ordering::SeqCst);
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                // A failed wake-up leaves no thread asleep: the futex word has changed.
                let _woken = futex::wake(&self.meetings, futex::Flags::PRIVATE, u32::MAX >> 1);
            }
        } else if !self.spin(meeting) {
            self.sleep(meeting);
        }
    }

    /// Spins until the round completes; false on timeout.
    fn spin(&self, meeting: u32) -> bool {
        let start = MonotonicNs::now().0;
        if start < self.sleep_until.load(Ordering::Relaxed) {
            return self.has_passed(meeting);
        }
        loop {
            for _ in 0..LOOKS {
                if self.has_passed(meeting) {
                    return true;
                }
                hint::spin_loop();
            }
            let now = MonotonicNs::now().0;
            if now - start > PATIENCE_NS {
                self.calm_down(now);
                return false;
            }
        }
    }

    fn has_passed(&self, meeting: u32) -> bool {
        self.meetings.load(Ordering::Acquire) != meeting
    }

    /// Starts a backoff: longer, the shorter the quiet time since the last one.
    fn calm_down(&self, now: u64) {
        let pause = self.pause_ns.load(Ordering::Relaxed);
        let peace = now.saturating_sub(self.sleep_until.load(Ordering::Relaxed));
        let pause = if peace > 2 * pause { PAUSE_FIRST_NS } else { (2 * pause).min(PAUSE_MOST_NS) };
        self.pause_ns.store(pause, Ordering::Relaxed);
        self.sleep_until.store(now + pause, Ordering::Relaxed);
    }

    fn sleep(&self, meeting: u32) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.meetings.load(Ordering::SeqCst) == meeting {
            // The loop checks the condition again after interrupts.
            let _slept = futex::wait(&self.meetings, futex::Flags::PRIVATE, meeting, None);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Threads that add to a shared number between rounds and see the whole sum after each.
    fn meet(barrier: &Barrier, team: u32, rounds: u32) {
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
            meet(&barrier, team, 300);
        }
    }

    #[test]
    fn no_thread_passes_before_all_have_arrived_when_all_sleep() {
        let barrier = Barrier::new();
        barrier.sleep_until.store(u64::MAX, Ordering::Relaxed);
        meet(&barrier, 4, 300);
    }

    #[test]
    fn pauses_grow_while_long_waits_follow_each_other_and_shrink_in_peace() {
        let barrier = Barrier::new();
        let mut now = 1_000 * PAUSE_MOST_NS;
        let mut pause = |peace_ns: u64| {
            now = now.max(barrier.sleep_until.load(Ordering::Relaxed)) + peace_ns;
            barrier.calm_down(now);
            barrier.sleep_until.load(Ordering::Relaxed) - now
        };
        assert_eq!(pause(0), PAUSE_FIRST_NS);
        assert_eq!((pause(1), pause(1)), (2 * PAUSE_FIRST_NS, 4 * PAUSE_FIRST_NS));
        (0..10).for_each(|_| assert!(pause(1) <= PAUSE_MOST_NS));
        assert_eq!(pause(3 * PAUSE_MOST_NS), PAUSE_FIRST_NS);
    }
}
