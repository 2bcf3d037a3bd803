//! Layers around the routes and the listener, which see every request and every connection.

pub mod connection_limit;
pub mod cors;
pub mod observe;
pub mod origin_guard;
pub mod request_id;
