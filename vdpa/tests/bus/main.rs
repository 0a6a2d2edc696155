//! The generic bus: who drives what, in whatever order they come, and what is left afterwards.

mod lifetime;
mod matching;
mod power;
mod threads;
mod toy;
