//! `wattgate replay`, `train`, `route`, `measure` and the promotion of routers.

mod log;
mod measure;
mod promote;
mod replay;
mod route;
mod train;
