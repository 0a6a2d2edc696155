//! What the site reads and answers, without sockets, tasks or devices: HTTP, paths, types, ranges,
//! dates, the files of a FAT volume, and the pages.
//!
//! Everything here runs on the host too, so that the tests need no machine to boot. The application
//! on top of it (package `site`) owns connections and the disk.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod condition;
pub mod content_type;
pub mod date;
pub mod disk;
pub mod escape;
pub mod http;
pub mod human;
pub mod listing;
pub mod management;
pub mod page;
pub mod partition;
pub mod path;
pub mod pci;
pub mod pieces;
pub mod range;
pub mod shares;
pub mod status;
pub mod volume;
