//! Energy of processes, modelled from their CPU time.

pub mod cgroup;
pub mod cpu_model;
pub mod stat;
