//! Clients that are hostile or unlucky: none stops the others, none keeps what it does not use, and
//! nothing private comes out.

mod browsers;
mod canary;
mod clients;
mod edges;
mod half_closed;
mod privacy;
mod shares;
mod stop;
