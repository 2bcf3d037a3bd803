//! One file per group of endpoints.

pub mod admin;
pub mod feedback;
pub mod generate;
pub mod health;
pub mod messages;
pub mod metrics;
pub mod models;
pub mod openai;
pub mod requests;
pub mod responses;
pub mod route;
