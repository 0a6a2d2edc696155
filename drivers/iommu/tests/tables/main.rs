//! ACPI tables of machines that QEMU plays, of real servers, and of nobody.

#![cfg(test)]

mod builder;
mod dmar;
mod ivrs;
#[path = "../../fuzz/src/lib.rs"]
mod programs;
mod property;
#[path = "../../../../tests/shared/replay.rs"]
mod replay;
mod viot;

#[test]
fn no_table_of_the_corpus_breaks_a_promise() {
    replay::replay("iommu_tables", programs::iommu_tables);
}
