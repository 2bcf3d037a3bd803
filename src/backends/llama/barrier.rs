//! Where the computing threads of a step wait for each other: hundreds of times, on an idle machine for microseconds.
//!
//! Takes the place of GNU OpenMP's `GOMP_barrier`, which either always spins for a fixed number of times or never does.
//! On two idle cores spinning doubled the tokens/s against sleeping. On two cores with ten other busy processes it left
//! 6 of 70: who spins loses the scheduler's favour, and waits for a thread that has no core. So this one spins until a
//! wait takes longer than any on a machine of one's own, and then sleeps at once for a while before it tries again.
//!
//! Knows one team of threads: an engine evaluates one batch at a time.

#![expect(unsafe_code, reason = "C calls the barrier and tells the size of the team")]

use std::ffi::c_int;
use std::hint;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::thread::futex;

use crate::units::MonotonicNs;

/// A wait that takes longer is for a thread without a core. Other work of one's own, such as sending a token on, is
/// shorter.
const PATIENCE_NS: u64 = 1_000_000;

/// How long to sleep at once after such a wait: first, and at most when there is one after the other.
const PAUSE_FIRST_NS: u64 = 5_000_000;
const PAUSE_MOST_NS: u64 = 1_000_000_000;

/// Looks between two looks at the clock.
const LOOKS: usize = 32;

static BARRIER: Barrier = Barrier::new();

unsafe extern "C" {
    fn omp_get_num_threads() -> c_int;
}

/// What compilers make of `#pragma omp barrier`.
#[unsafe(no_mangle)]
extern "C" fn GOMP_barrier() {
    // SAFETY: it reads a number of the calling thread's team.
    let team = unsafe { omp_get_num_threads() };
    BARRIER.wait(u32::try_from(team).unwrap_or(1));
}

/// Makes sure that the linker takes this barrier and not the library's.
pub(super) fn install() {
    hint::black_box(GOMP_barrier as extern "C" fn());
}

/// A place where as many threads as a team has meet, again and again.
struct Barrier {
    arrived: AtomicU32,
    /// Counts the meetings; waited on.
    meetings: AtomicU32,
    sleepers: AtomicU32,
    /// When waits may be spent spinning again.
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

    /// Returns when `team` threads have called it.
    fn wait(&self, team: u32) {
        let meeting = self.meetings.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 >= team {
            self.arrived.store(0, Ordering::Relaxed);
            // Total order with the sleepers: either they see the new meeting or this sees them.
            self.meetings.store(meeting.wrapping_add(1), Ordering::SeqCst);
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                // A wake-up that fails leaves nobody asleep: the word has changed.
                let _woken = futex::wake(&self.meetings, futex::Flags::PRIVATE, u32::MAX >> 1);
            }
        } else if !self.spin(meeting) {
            self.sleep(meeting);
        }
    }

    /// Looks for the end of the meeting as long as that is worth it; whether it came.
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

    /// Somebody else needs the cores: sleep for longer, the sooner this comes after the last time.
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
            // Interrupted, or changed meanwhile: the condition tells.
            let _slept = futex::wait(&self.meetings, futex::Flags::PRIVATE, meeting, None);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Threads that add to a common number between meetings, and see all of it after each.
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
