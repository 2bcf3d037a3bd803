//! The electricity grid: carbon intensity, emissions and prices of energy used.

pub mod emissions;
pub mod intensity;
pub mod live_intensity;
pub mod rates;
pub mod tariff;
