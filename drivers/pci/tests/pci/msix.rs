//! MSI-X: entries joined to vectors, and put back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pci::{BarError, CapabilityError, Claim, MsixError, ResourceError};
use vdpa::platform::{Callback, NoVector};

use crate::fakes::function::{BarType, Builder};
use crate::fakes::machine::Machine;
use crate::fakes::virtio::{FakeVirtio, Plan};

const NAME: &str = "pci0000:00:01.0";

fn ignore() -> Callback {
    Callback::new(|| {})
}

fn claim_of(builder: Builder) -> (Machine, Claim) {
    let machine = Machine::with_functions(&[&builder.build()]);
    machine.enumerate();
    let claim = machine.device(NAME).claim().unwrap();
    (machine, claim)
}

#[track_caller]
fn refused(builder: Builder, error: MsixError) {
    let (_machine, claim) = claim_of(builder);
    let before = claim.config().read32(0x40);
    assert_eq!(claim.msix().unwrap_err(), error);
    assert_eq!(claim.config().read32(0x40), before);
}

fn endpoint() -> Builder {
    Builder::endpoint(1, 1).bar(1, 0x1000, BarType::Memory32)
}

#[test]
fn a_function_without_the_capability_has_none() {
    let (_machine, claim) = claim_of(endpoint());
    assert!(claim.msix().unwrap().is_none());
}

#[test]
fn a_vector_reaches_its_handler_and_no_other() {
    let (device, function) = FakeVirtio::new(Plan::default());
    let machine = Machine::with_functions(&[&function]);
    machine.enumerate();
    let before = function.snapshot();
    let claim = machine.device(NAME).claim().unwrap();
    // SAFETY: a fake reaches no memory.
    let master = unsafe { claim.enable_bus_master() };
    let msix = claim.msix().unwrap().unwrap();
    assert_eq!(msix.size(), 4);
    assert_eq!(device.unmasked(), 0);

    let counts = [(); 2].map(|()| Arc::<AtomicUsize>::default());
    let vectors = counts.each_ref().map(|count| {
        let count = Arc::clone(count);
        let handler = Callback::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        msix.allocate(handler).unwrap()
    });
    assert_eq!(vectors.each_ref().map(|vector| vector.index()), [0, 1]);
    assert_eq!(machine.fact(NAME, "MSI-X vectors").unwrap(), "2");
    device.state.lock().queues[0].vector = 1;
    device.interrupt_queue(0, &machine.platform);
    let called = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(called, [0, 1]);
    assert_eq!(
        (device.unmasked(), machine.platform.vectors_in_use()),
        (2, 2)
    );

    let [first, second] = vectors;
    drop(first);
    assert_eq!(
        (device.unmasked(), machine.platform.vectors_in_use()),
        (1, 1)
    );
    // The free entry is used again.
    let third = msix.allocate(ignore()).unwrap();
    assert_eq!(third.index(), 0);

    drop((second, third, msix, master));
    drop(claim);
    assert_eq!(machine.platform.vectors_in_use(), 0);
    assert_eq!(function.snapshot(), before);
    assert_eq!(device.violations(), Vec::<String>::new());
}

#[test]
fn an_entry_is_masked_before_it_is_edited() {
    let (device, function) = FakeVirtio::new(Plan::default());
    let machine = Machine::with_functions(&[&function]);
    machine.enumerate();
    let claim = machine.device(NAME).claim().unwrap();
    let msix = claim.msix().unwrap().unwrap();
    // The device has forgotten the mask of entry 0.
    let table = claim.map(1).unwrap();
    // SAFETY: the function is a fake, which reaches no memory.
    unsafe { table.write32(12, 0) };
    assert_eq!(device.unmasked(), 1);
    let _vector = msix.allocate(ignore()).unwrap();
    assert_eq!(device.violations(), Vec::<String>::new());
}

#[test]
fn entries_and_vectors_run_out_separately() {
    let (_device, function) = FakeVirtio::new(Plan {
        vectors: 2,
        ..Plan::default()
    });
    let machine = Machine::with_functions(&[&function]);
    machine.enumerate();
    let claim = machine.device(NAME).claim().unwrap();
    let msix = claim.msix().unwrap().unwrap();
    let mut taken = vec![msix.allocate(ignore()).unwrap()];
    machine.platform.limit_vectors(1);
    let error = msix.allocate(ignore()).unwrap_err();
    assert_eq!(error, MsixError::NoVector(NoVector));
    machine.platform.limit_vectors(9);
    taken.push(msix.allocate(ignore()).unwrap());
    let error = msix.allocate(ignore()).unwrap_err();
    assert_eq!(error, MsixError::NoEntry);
    assert_eq!(taken.len(), 2);
}

#[test]
fn a_table_or_pending_bits_outside_the_bar_are_refused() {
    // 257 entries of 16 bytes need more than a page.
    refused(endpoint().msix(257, 1, 1), MsixError::Outside);
    refused(endpoint().msix(4, 0xfd0 | 1, 1), MsixError::Outside);
    refused(endpoint().msix(4, 1, 0x1000 | 1), MsixError::Outside);
    refused(endpoint().msix(4, 0xffff_fff8 | 1, 1), MsixError::Outside);
}

#[test]
fn a_table_in_a_bar_that_is_none_is_refused() {
    let table = |error| MsixError::Table(error);
    refused(endpoint().msix(4, 7, 1), table(ResourceError::NoBar));
    refused(endpoint().msix(4, 2, 1), table(ResourceError::NoBar));
    let io = endpoint().bar(0, 0x40, BarType::Io).msix(4, 0, 1);
    refused(io, table(ResourceError::IoBar));
    let reserved = endpoint().set(0x10, &[0b110]).msix(4, 0, 1);
    refused(
        reserved,
        table(ResourceError::BadBar(BarError::ReservedType)),
    );
}

#[test]
fn a_function_that_does_not_enable_it_is_refused() {
    refused(
        endpoint().msix(4, 1, 0x801).writable(0x43, &[0x40]),
        MsixError::Refused,
    );
}

#[test]
fn a_table_that_does_not_hold_what_is_written_is_refused() {
    // There is nothing behind this BAR: it reads as zero.
    let (machine, claim) = claim_of(endpoint().msix(4, 1, 0x801));
    let msix = claim.msix().unwrap().unwrap();
    let error = msix.allocate(ignore()).unwrap_err();
    assert_eq!(error, MsixError::Refused);
    assert_eq!(machine.platform.vectors_in_use(), 0);
}

#[test]
fn a_capability_list_that_loops_is_reported() {
    let looping = endpoint().msix(4, 1, 0x801).set(0x41, &[0x40]);
    let (_machine, claim) = claim_of(looping);
    let error = claim.msix().unwrap_err();
    assert_eq!(error, MsixError::Capability(CapabilityError::Loop));
}
