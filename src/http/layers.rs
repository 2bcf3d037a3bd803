//! Layers around the routes, which see every request.

pub mod observe;
pub mod request_id;
