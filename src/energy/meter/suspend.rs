//! Detection of system suspension, during which the monotonic clock stops and energy counters are
//! unreliable.

use std::time::Duration;

/// Compares a clock that stops during suspension with one that does not.
#[derive(Debug)]
pub(super) struct SuspendDetector {
    /// Lead of the second clock at the last comparison.
    ahead: Duration,
}

/// Largest difference between the two clocks without suspension, since they are read one after the
/// other.
const AWAKE: Duration = Duration::from_millis(100);

impl SuspendDetector {
    pub(super) fn start() -> Self {
        Self { ahead: ahead() }
    }

    /// Duration of suspension since the last call; `None` without one.
    pub(super) fn suspended(&mut self) -> Option<Duration> {
        self.compare(ahead())
    }

    fn compare(&mut self, ahead: Duration) -> Option<Duration> {
        let suspended = ahead.checked_sub(self.ahead)?;
        self.ahead = ahead;
        (suspended > AWAKE).then_some(suspended)
    }
}

#[cfg(target_os = "linux")]
fn ahead() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    let monotonic = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(monotonic)
}

/// On other systems the monotonic clock runs during suspension: the meter sees a long gap.
#[cfg(not(target_os = "linux"))]
fn ahead() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_growing_difference_is_suspension() {
        let mut watch = SuspendDetector { ahead: Duration::from_secs(5) };
        assert_eq!(watch.compare(Duration::from_millis(5020)), None);
        assert_eq!(watch.compare(Duration::from_secs(65)), Some(Duration::from_millis(59_980)));
        assert_eq!(watch.compare(Duration::from_secs(65)), None);
        assert_eq!(watch.compare(Duration::from_secs(64)), None);
    }

    #[test]
    fn a_machine_that_runs_this_test_is_awake() {
        assert_eq!(SuspendDetector::start().suspended(), None);
    }
}
