//! The other end of a connection.

use std::net::SocketAddr;

/// An extension of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Address(SocketAddr),
    /// A program that may open the operator's Unix socket: the file's mode is its key.
    Operator,
}
