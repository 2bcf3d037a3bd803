//! Models as the serving core knows them: their costs, their statistics and the trained router that
//! rates them.

pub mod deployment;
pub mod model;
pub mod online_stats;
mod pool;
pub mod router_handle;
pub mod training;
