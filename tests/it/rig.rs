//! The test rig: gateways, engines and mock servers that the tests of every folder start.

pub mod app;
pub mod cli;
pub mod engine;
pub mod fake_engine;
pub mod gguf;
pub mod hub;
pub mod led_upstream;
pub mod machine;
pub mod local_models;
pub mod mock_upstream;
pub mod model_folder;
pub mod named_events;
pub mod rapl;
pub mod raw_http;
pub mod serving;
pub mod stepped_clock;
pub mod unruly_upstream;
