//! Which models may be loaded at the same time: what each needs, what there is, and which one
//! leaves for another.

pub mod budget;
pub mod estimate;
pub mod eviction;
pub mod gguf;
pub mod keep_alive;
pub mod repack_table;
pub mod threads;
