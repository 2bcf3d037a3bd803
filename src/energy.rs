//! Energy: who used how much of it. Sensors, the meter thread, attribution to attempts, predictions and the grid.
//!
//! Knows devices, engines and attempts; knows nothing of the HTTP API, of answers' texts or of routing.
//!
//! Each room uses only those above it: `sensors` read devices, `prediction` estimates, `attribution` divides readings over
//! attempts (pure), `grid` turns joules into grams and dollars, `discovery` finds and selects sensors, and `meter` runs
//! them all on one thread.

pub mod figure;
pub mod hardware;
pub mod work;
pub mod polling;
pub mod sensors;
pub mod prediction;
pub mod attribution;
pub mod grid;
pub mod config;
pub mod discovery;
pub mod meter;

pub use attribution::device::{DeviceSnapshot, Scope};
pub use attribution::{MeterSnapshot, Settled};
pub use config::{Config, ConfigError, SensorChoice};
pub use discovery::discover;
pub use figure::{EnergyFigure, Quality, Source};
pub use hardware::Hardware;
pub use meter::{Meter, MeterError, MeterHandle};
pub use prediction::calibration::Calibration;
pub use prediction::estimate::ExpectedTime;
pub use prediction::profile::{Profile, ProfileError};
pub use work::{TokenWeights, Tokens, WorkRow, WorkSpan};
