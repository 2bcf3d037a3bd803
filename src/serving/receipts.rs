//! Receipts from the end of an answer until their energy is final, and the metrics that follow from
//! them.

pub mod emissions;
pub mod outcome_metrics;
pub mod request_metrics;
pub mod store;
pub mod totals;
