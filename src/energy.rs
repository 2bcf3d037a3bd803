//! Energy metering: sensors, attribution of their readings to attempts, predictions, emissions and
//! price.
//!
//! Works on devices, engines and attempts; independent of the HTTP API, of answers' texts and of
//! routing.
//!
//! Modules in order of use: `sensors` read devices, `prediction` estimates energy, `attribution`
//! divides readings over attempts (pure), `grid` converts joules to grams and dollars, `discovery`
//! finds and selects sensors, `meter` runs them on one thread. Each uses only those before it.

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
pub use config::{Config, SensorChoice};
pub use discovery::discover;
pub use figure::{EnergyFigure, Quality, Source};
pub use hardware::Hardware;
pub use meter::{AttemptObserver, Meter, MeterError, MeterHandle, OpenAttempt, PendingAttempt};
pub use prediction::calibration::Calibration;
pub use prediction::estimate::ExpectedTime;
pub use prediction::profile::{Profile, ProfileError};
pub use work::{TokenWeights, Tokens, WorkRow, WorkSpan};
