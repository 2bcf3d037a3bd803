//! Local engines and upstreams: answers, processes, memory, crashes, damaged files.

mod batch_invariance;
mod cloud;
mod crashes;
mod engine;
mod fake_engine;
mod hostile_files;
mod kernels;
mod lifecycle;
mod lora;
mod odd_answers;
mod odd_streams;
mod prefix_cache;
mod sandbox;
mod soak;
mod speculative;
mod two_models;
