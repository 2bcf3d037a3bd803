//! What was used, and by whom: sensors, the meter thread, the ledger (pure) and the cloud table.
//!
//! Knows devices, engines and attempts; knows nothing of HTTP, models' answers or routing.

pub mod figure;

pub use figure::{EnergyFigure, Quality, Source};
