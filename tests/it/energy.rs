//! Sensors, attribution and conservation of energy, emissions.

mod attribution;
mod conservation;
mod sources;
