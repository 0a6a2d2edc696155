//! The FAT volume whose files are served: finding, listing, and where on the disk a file's bytes
//! lie.
//!
//! Only the file system's own blocks go through here, through a small read-ahead. The bytes of
//! files do not: [`Volume::extents`] says where they are, and the sender of a file reads the disk
//! directly, so that downloads wait for each other nowhere but at the disk. Nothing is ever
//! written.
//!
//! A volume may be damaged or made to do harm. Every question has an end: directories are read slot
//! by slot up to a limit, chains of clusters are watched for loops, and nothing outside the volume
//! is read. This stands on the on-disk layer of `hadris-fat` and not on its file system, for which
//! one bad entry makes the whole directory unreadable.
//!
//! Source: Microsoft, FAT32 File System Specification 1.03.

mod count;
mod directory;
mod entry;
mod error;
mod extents;
mod find;
mod listing;
mod mount;

pub use count::FileCount;
pub use directory::Cursor;
pub use entry::{Directory, Entry, EntryKind, File, Found};
pub use error::VolumeError;
pub use listing::Listing;
pub use mount::Volume;

#[cfg(test)]
mod tests;
