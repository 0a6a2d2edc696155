//! Memory: which of it is free, the heap on it, and the page tables.
//!
//! All memory is mapped at its physical address, and so are device registers. What the kernel may
//! do where is up to the page tables: code is read-only, nothing writable can be executed, and the
//! first page, the pages below the stacks and everything that is neither memory nor a mapped
//! register are not there.

#[cfg(target_os = "none")]
pub(crate) mod dma;
#[cfg(target_os = "none")]
pub(crate) mod heap;
#[cfg(target_os = "none")]
mod kernel_tables;
#[cfg(target_os = "none")]
pub(crate) mod mmio;
mod page_tables;
pub(crate) mod regions;

#[cfg(target_os = "none")]
pub(crate) use self::kernel_tables::{init, map, stacks};
#[cfg(target_os = "none")]
pub(crate) use self::page_tables::Access;
