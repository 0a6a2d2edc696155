//! Which memory is free, and page tables as data.

pub(crate) mod page_tables;
pub(crate) mod regions;
