//! Turning a unit on.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU64};

use spin::Mutex;
use vdpa::dma::IsolationUnit;
use vdpa::platform::{Callback, InterruptVector, PhysAddr};
use vdpa::{Node, Platform};
use virtq::{DmaError, Event};

use crate::hardware_table::{Coherence, TableSource};
use crate::page_table::TableError;
use crate::tables::{Dmar, DmarFlags};

use super::Vtd;
use super::capability::{Capabilities, Mode};
use super::contexts::Contexts;
use super::fault::{FaultCounts, watch};
use super::interrupt::{Destinations, Remapping};
use super::queue::{Invalidation, Queue};
use super::registers::{FaultStatus, Global, Register, Registers, Timeout, wait};
use super::unit::{State, Unit};

/// How the processors' local APICs work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicMode {
    /// Their ids have 8 bits.
    XApic,
    /// Their ids have 32 bits.
    X2Apic,
}

/// Why a unit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VtdError {
    /// The table has fewer.
    #[error("the DMAR table has no such unit")]
    NoUnit,
    /// Nothing is where its registers should be.
    #[error("the registers of the IOMMU are not there")]
    Registers,
    /// It has no invalidation queue, or no page tables of three levels or more.
    #[error("the IOMMU cannot queue invalidations, or has no page tables that are known")]
    Unsupported,
    /// There is no memory for its tables.
    #[error("no memory for the tables of the IOMMU")]
    OutOfMemory,
    /// It does not do what it is told.
    #[error("the IOMMU did not answer in time")]
    Timeout,
}

impl From<DmaError> for VtdError {
    fn from(_: DmaError) -> Self {
        Self::OutOfMemory
    }
}

impl From<TableError> for VtdError {
    fn from(_: TableError) -> Self {
        Self::OutOfMemory
    }
}

impl From<Timeout> for VtdError {
    fn from(_: Timeout) -> Self {
        Self::Timeout
    }
}

impl Vtd {
    /// Turns on the unit of this index in the table. From now on devices behind it reach nothing
    /// but what firmware uses, and raise no interrupts but remapped ones, where it can remap.
    ///
    /// # Errors
    /// [`VtdError`]: it is off, as far as it obeys.
    ///
    /// # Safety
    /// What the table says of the unit's registers is true, and nobody else uses them.
    pub unsafe fn start(
        platform: &Arc<dyn Platform>,
        table: &Dmar,
        index: usize,
        apics: ApicMode,
    ) -> Result<Arc<Self>, VtdError> {
        let description = table.units.get(index).ok_or(VtdError::NoUnit)?;
        // SAFETY: the caller vouches for it.
        let mmio = unsafe { platform.map_mmio(PhysAddr(description.base), description.size) };
        let mmio = mmio.map_err(|_| VtdError::Registers)?;
        let registers = Registers::new(mmio).ok_or(VtdError::Registers)?;
        stop(&registers, &**platform)?;

        let unit = Arc::new(unit(platform, registers, table, index, apics)?);
        make_homes(&unit, table)?;
        let event = Arc::new(Event::new());
        let vector = connect_fault_event(&unit, &event);
        // The unit reads its tables for as long as it is on.
        mem::forget(Arc::clone(&unit));
        if let Err(error) = enable(&unit) {
            let _ = stop(&unit.registers, &**platform);
            return Err(error);
        }
        let task = watch(Arc::downgrade(&unit), Arc::clone(platform), event, vector);
        platform.spawn(&format!("{} faults", unit.name), Box::pin(task));
        Ok(Arc::new(Self { unit }))
    }
}

/// Turns off what firmware has left on: the queue last, which must have been emptied (6.5.2).
fn stop(registers: &Registers, platform: &dyn Platform) -> Result<(), Timeout> {
    registers.mask_fault_event();
    registers.turn_off(Global::TRANSLATION, platform)?;
    registers.turn_off(Global::INTERRUPT_REMAPPING, platform)?;
    if registers.status().contains(Global::QUEUED_INVALIDATION) {
        // One that has stopped with an error is never empty.
        let _ = wait(platform, || {
            registers.read64(Register::QueueHead) == registers.read64(Register::QueueTail)
        });
    }
    registers.turn_off(Global::QUEUED_INVALIDATION, platform)?;
    registers.turn_off(Global::COMPATIBILITY_FORMAT, platform)
}

fn unit(
    platform: &Arc<dyn Platform>,
    registers: Registers,
    table: &Dmar,
    index: usize,
    apics: ApicMode,
) -> Result<Unit, VtdError> {
    let capabilities = Capabilities::read(&registers);
    let levels = capabilities.levels().ok_or(VtdError::Unsupported)?;
    if !capabilities.queues_invalidations() {
        return Err(VtdError::Unsupported);
    }
    let coherence = |snoops| {
        if snoops {
            Coherence::Snooped
        } else {
            Coherence::NotSnooped
        }
    };
    let snoops = match capabilities.mode() {
        Mode::Legacy => capabilities.snoops(),
        Mode::Scalable => capabilities.snoops_scalable(),
    };
    let source = TableSource::new(&**platform, coherence(snoops));
    let state = State::new(
        Queue::new(&**platform, capabilities)?,
        Contexts::new(capabilities.mode(), &source)?,
        capabilities,
    );
    let can_remap = table.flags.contains(DmarFlags::INTR_REMAP) && capabilities.remaps_interrupts();
    let interrupts = if can_remap {
        let destinations = match apics {
            ApicMode::X2Apic if capabilities.names_x2apic() => Destinations::ThirtyTwoBits,
            _ => Destinations::EightBits,
        };
        let source = TableSource::new(&**platform, coherence(capabilities.snoops()));
        Some(Remapping::new(&source, destinations)?)
    } else {
        None
    };
    let description = table.units.get(index).ok_or(VtdError::NoUnit)?;
    Ok(Unit {
        name: format!("dmar{index}"),
        platform: Arc::clone(platform),
        registers,
        capabilities,
        levels,
        description: description.clone(),
        firmware: table.reserved.clone(),
        source,
        state: Mutex::new(state),
        interrupts,
        known: Mutex::new(BTreeMap::new()),
        faults: FaultCounts::default(),
        mapped: AtomicU64::new(0),
        broken: AtomicBool::new(false),
    })
}

/// Lets devices keep what firmware uses, as far as the table says where they are without the
/// numbers of other buses.
fn make_homes(unit: &Unit, table: &Dmar) -> Result<(), VtdError> {
    let node = Node::root(&unit.name);
    for range in &table.reserved {
        for device in range.scopes.iter().filter_map(|scope| scope.requester_id()) {
            let id = u32::from(range.segment) << 16 | u32::from(device);
            let isolated = IsolationUnit::new(&node, Some(id), None);
            let first = table.units.iter().find(|drhd| drhd.covers(&isolated));
            if first != Some(&unit.description) {
                continue;
            }
            let ranges = unit.firmware_ranges(&isolated);
            unit.make_home(&mut unit.state.lock(), device, &ranges)?;
        }
    }
    Ok(())
}

/// Lets the unit raise an event when it has refused something. `None`, if there is no vector.
fn connect_fault_event(unit: &Unit, event: &Arc<Event>) -> Option<Box<dyn InterruptVector>> {
    let vector = unit
        .platform
        .allocate_vector(None, Callback::event(Arc::clone(event)));
    let vector = vector.ok()?;
    let message = vector.message();
    let registers = &unit.registers;
    registers.write32(Register::FaultEventData, message.data);
    registers.write64(Register::FaultEventAddress, message.address);
    Some(vector)
}

/// Turns everything on, in the order of the specification (VT-d 4.1, 6.5.2, 10.3 and 10.4): what a
/// table's address leads to is forgotten before it is used.
fn enable(unit: &Unit) -> Result<(), VtdError> {
    let registers = &unit.registers;
    let platform = &*unit.platform;
    let mut state = unit.state.lock();
    registers.write64(Register::RootTable, state.contexts.root());
    registers.turn_on(Global::SET_ROOT_TABLE, platform)?;
    registers.clear_fault_status(FaultStatus::from_bits_retain(u32::MAX));
    state.queue.enable(registers, platform)?;
    let mut list = alloc::vec![Invalidation::AllContexts];
    if unit.capabilities.mode() == Mode::Scalable {
        list.push(Invalidation::AllPasids);
    }
    list.push(Invalidation::AllTranslations);
    unit.forget(&mut state, &list)?;
    if let Some(remapping) = &unit.interrupts {
        registers.write64(Register::InterruptTable, remapping.root());
        registers.turn_on(Global::SET_INTERRUPT_TABLE, platform)?;
        unit.forget(&mut state, &[Invalidation::AllInterrupts])?;
        registers.turn_on(Global::INTERRUPT_REMAPPING, platform)?;
    }
    registers.turn_on(Global::TRANSLATION, platform)?;
    if unit.capabilities.protects_ranges() {
        registers.end_protected_ranges(platform)?;
    }
    drop(state);
    // What firmware's devices were refused is nobody's.
    let _ = unit.drain_faults();
    registers.unmask_fault_event();
    Ok(())
}
