//! Sensors, attribution and conservation of energy, emissions.

mod attribution;
mod conservation;
mod machines;
mod sources;
