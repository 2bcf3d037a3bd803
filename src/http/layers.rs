//! Layers around the routes, which see every request.

pub mod cors;
pub mod observe;
pub mod origin_guard;
pub mod request_id;
