//! Wattgate: an OpenAI-compatible gateway that answers with the least energy that is good enough.
//!
//! The modules stand in dependency order: each may use only those before it (`tests/tidy/` proves
//! it). `ARCHITECTURE.md` is the map; this file only lists the rooms.

pub mod units;
pub mod validate;
pub mod plot;
pub mod page;
pub mod files;
pub mod locality;
pub mod shares;
pub mod offload;
pub mod openai;
pub mod telemetry;
pub mod net;
pub mod energy;
pub mod models;
pub mod backends;
pub mod routing;
pub mod traffic;
pub mod serving;
pub mod http;
pub mod replay;
pub mod train;
pub mod measure;
pub mod config;
pub mod app;
pub mod cli;
