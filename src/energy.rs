//! What was used, and by whom: sensors, the meter thread, the ledger (pure) and the cloud table.
//!
//! Knows devices, engines and attempts; knows nothing of HTTP, models' answers or routing.

pub mod figure;
pub mod hardware;
pub mod grid;
pub mod carbon;
pub mod tariff;
pub mod sensor;
pub mod calibration;
pub mod counter;
pub mod integral;
pub mod cpu_model;
pub mod cgroup;
pub mod sleep;
pub mod work;
pub mod split;
pub mod loads;
pub mod ledger;
pub mod profile;
pub mod estimate;
pub mod device;
pub mod accounts;
pub mod config;
pub mod sensors;
pub mod live;
pub mod rates;
pub mod meter;
pub mod cloud;
pub mod upstream;

pub use accounts::{Books, Settled};
pub use calibration::Calibration;
pub use config::{Config, ConfigError, SensorChoice};
pub use device::{DeviceBook, Serves};
pub use estimate::ExpectedTime;
pub use figure::{EnergyFigure, Quality, Source};
pub use hardware::Hardware;
pub use meter::{Meter, MeterError, MeterHandle};
pub use profile::{Profile, ProfileError};
pub use sensors::survey::survey;
pub use work::{Tokens, WorkRow, WorkSpan};
