//! Memory: which of it is free, the heap on it, and the page tables.
//!
//! All memory is mapped at its physical address, and so are device registers. What the kernel may
//! do where is up to the page tables: code is read-only, nothing writable can be executed, and the
//! first page, the pages below the stacks and everything that is neither memory nor a mapped
//! register are not there.

pub(crate) mod dma;
pub(crate) mod heap;
mod kernel_tables;
pub(crate) mod mmio;

pub(crate) use self::kernel_tables::{init, map, stacks};
pub(crate) use crate::pure::memory::page_tables::Access;
