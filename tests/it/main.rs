//! The tests that go through the front door: one binary, so the crate is linked once.

mod app;
mod cloud;
mod config;
mod engine;
mod faults;
mod fallback;
mod gateway;
mod local;
mod log;
mod models;
mod replay;
mod stand_in;
mod train;
