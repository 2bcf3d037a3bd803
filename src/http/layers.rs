//! Layers around the routes and the listener, which see every request and every connection.

pub mod connection_limit;
pub mod observe;
pub mod request_id;
