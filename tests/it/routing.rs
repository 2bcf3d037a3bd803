//! Policies, sessions, fallback, cascade and shadow judging.

mod cascade;
mod cascade_curve;
mod deployments;
mod fallback;
mod first_word;
mod judge;
mod policies;
mod sessions;
