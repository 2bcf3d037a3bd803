//! Buckets of the histograms.

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// 1 ms to 65.5 s, doubling: from a cached decision to a long local answer.
pub(super) fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

/// 50 ms to 27 minutes, doubling: from a small file in the page cache to a large one on a slow
/// disk.
pub(super) fn load_time() -> Histogram {
    Histogram::new(exponential_buckets(0.05, 2.0, 16))
}

/// 0.5 ms to 1 s, doubling: from a GPU to a large model on two cores.
pub(super) fn token_time() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 12))
}

/// 1/16 to 16 in steps of √2: 1 is a perfect prediction.
pub(super) fn ratio() -> Histogram {
    let step = std::f64::consts::SQRT_2;
    Histogram::new(exponential_buckets(0.0625, step, 17))
}

/// 1 to 128, doubling.
pub(super) fn slots() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 8))
}

/// 1 µs to 16 ms, doubling.
pub(super) fn decision_time() -> Histogram {
    Histogram::new(exponential_buckets(1e-6, 2.0, 15))
}
