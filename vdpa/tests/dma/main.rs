//! Who may let a device reach which memory: attachments, isolation units, memory that moves,
//! address spaces.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod address_space;
mod adi;
mod batches;
mod changes;
mod confined;
mod dirty_log;
mod dirty_pages;
mod dma_space;
mod faults;
mod iommu;
mod lifetime;
mod ownership;
mod property;
mod world;
