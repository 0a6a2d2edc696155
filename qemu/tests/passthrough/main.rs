//! Functions of a host that are passed through: what is said about the host, what is done to it,
//! and that it is as before afterwards. The host is a folder.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose case cannot be set up has failed"
)]

mod binding;
mod documentation;
mod fake;
mod findings;
mod ids;
#[path = "../kernel/mod.rs"]
mod kernel;
mod program;
mod refusals;
