//! Turning an IOMMU on.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;

use spin::Mutex;
use vdpa::Platform;
use vdpa::iotlb::IovaRange;
use vdpa::platform::{Callback, InterruptMessage, InterruptVector, PhysAddr};
use virtq::{DmaError, Event};

use crate::hardware_table::{Coherence, TableSource};
use crate::page_table::TableError;
use crate::tables::{DteSettings, Ivhd, IvhdFlags, Ivrs, SpecialKind};

use super::AmdVi;
use super::command::{Command, CommandBuffer};
use super::device_table::{DeviceTable, Remapping};
use super::event::{EventCounts, EventLog};
use super::firmware::Firmware;
use super::function::{Capability, ConfigSpace, enable_msi};
use super::interrupt::EntryFormat;
use super::registers::{Control, Features, REGISTERS_SIZE, Register, Registers, Status};
use super::unit::{Devices, Homes, Traits, Unit};

/// Of addresses. Every IOMMU has the levels for it.
const MOST_ADDRESS_BITS: u32 = 48;
const LEAST_ADDRESS_BITS: u32 = 32;

/// How long the log of an IOMMU without an interrupt is not looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked at, at most: a device can make events as fast as it likes.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// Why an IOMMU cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmdViError {
    /// The table has fewer.
    #[error("the IVRS table has no such IOMMU")]
    NoUnit,
    /// Nothing is where its registers should be.
    #[error("the registers of the IOMMU are not there")]
    Registers,
    /// There is no memory for its tables.
    #[error("no memory for the tables of the IOMMU")]
    OutOfMemory,
    /// Firmware has left it on, and it does not stop.
    #[error("the IOMMU does not stop")]
    NotStopped,
    /// It executes no commands.
    #[error("the IOMMU did not answer in time")]
    Timeout,
}

impl From<DmaError> for AmdViError {
    fn from(_: DmaError) -> Self {
        Self::OutOfMemory
    }
}

impl From<TableError> for AmdViError {
    fn from(_: TableError) -> Self {
        Self::OutOfMemory
    }
}

impl AmdVi {
    /// Turns on the IOMMU of this index in the table. From now on devices behind it reach nothing
    /// but what firmware uses. `config` is the IOMMU's own PCI function; without one its events are
    /// seen late.
    ///
    /// # Errors
    /// [`AmdViError`]: it is off, as far as it obeys.
    ///
    /// # Safety
    /// What the table says of the IOMMU's registers is true, and nobody else uses them.
    pub unsafe fn start(
        platform: &Arc<dyn Platform>,
        table: &Ivrs,
        index: usize,
        config: Option<&dyn ConfigSpace>,
    ) -> Result<Arc<Self>, AmdViError> {
        let description = table.units.get(index).ok_or(AmdViError::NoUnit)?;
        // SAFETY: the caller vouches for it.
        let mmio = unsafe { platform.map_mmio(PhysAddr(description.base), REGISTERS_SIZE) };
        let registers = Registers::new(mmio.map_err(|_| AmdViError::Registers)?);
        if registers.read(Register::Control) == u64::MAX {
            return Err(AmdViError::Registers);
        }
        let function = config.and_then(|config| {
            let capability = Capability::read(config, description.capability)?;
            Some((config, capability))
        });
        let features = match function {
            Some((_, capability)) if !capability.has_extended_features() => Features::empty(),
            _ => Features::from_bits_truncate(registers.read(Register::ExtendedFeatures)),
        };
        stop(&registers, &**platform)?;

        let event = Arc::new(Event::new());
        let interrupt = EventInterrupt::connect(platform, &event, features, function.map(|f| f.0));
        let traits = Traits {
            address_bits: address_bits(table),
            // What cannot be asked may remember.
            remembers_absence: function.is_none_or(|(_, it)| it.remembers_absence()),
            remapping: remapping(table),
            entries: entry_format(features),
        };
        let unit = Arc::new(unit(platform, registers, table, index, traits)?);
        unit.make_homes()?;
        enable(&unit, interrupt.as_ref());
        // The IOMMU reads its tables for as long as it is on.
        mem::forget(Arc::clone(&unit));
        if forget_everything(&unit, features).is_err() {
            let _ = stop(&unit.registers, &**platform);
            return Err(AmdViError::Timeout);
        }
        let task = watch(
            Arc::downgrade(&unit),
            Arc::clone(platform),
            event,
            interrupt,
        );
        platform.spawn(&format!("{} events", unit.name), Box::pin(task));
        Ok(Arc::new(Self { unit }))
    }
}

/// Turns off what firmware has left on: what depends on others first (AMD 48882, 3.4.1).
fn stop(registers: &Registers, platform: &dyn Platform) -> Result<(), AmdViError> {
    let mut control = registers.control();
    for part in [
        Control::CMD_BUF_EN,
        Control::EVENT_INT_EN | Control::EVENT_LOG_EN,
        Control::GA_LOG_EN | Control::GA_INT_EN,
        Control::PPR_EN | Control::PPR_LOG_EN | Control::PPR_INT_EN,
    ] {
        control -= part;
        // SAFETY: the IOMMU ceases to do something.
        unsafe { registers.set_control(control) };
    }
    let running = Status::CMD_BUF_RUN | Status::EVENT_LOG_RUN;
    let stopped = registers.stopped(running, platform);
    for control in [control - Control::IOMMU_EN, Control::empty()] {
        // SAFETY: as above.
        unsafe { registers.set_control(control) };
    }
    stopped.then_some(()).ok_or(AmdViError::NotStopped)
}

/// An IOMMU with tables in which nobody reaches anything.
fn unit(
    platform: &Arc<dyn Platform>,
    registers: Registers,
    table: &Ivrs,
    index: usize,
    traits: Traits,
) -> Result<Unit, AmdViError> {
    let description = table.units.get(index).ok_or(AmdViError::NoUnit)?;
    let coherence = if description.flags.contains(IvhdFlags::COHERENT) {
        Coherence::Snooped
    } else {
        Coherence::NotSnooped
    };
    let source = TableSource::new(&**platform, coherence);
    let mut devices = DeviceTable::new(&source, last_device(description), traits.remapping)?;
    set_system_management(&mut devices, description);
    let last = u64::MAX >> (64 - traits.address_bits);
    Ok(Unit {
        name: format!("amdvi{index}"),
        platform: Arc::clone(platform),
        registers,
        firmware: Firmware::new(description, &table.memory, last),
        description: description.clone(),
        traits,
        commands: Mutex::new(CommandBuffer::new(&source, &**platform)?),
        log: Mutex::new(EventLog::new(&**platform)?),
        source,
        devices: Mutex::new(Devices {
            table: devices,
            owners: BTreeMap::new(),
            homes: Homes::default(),
        }),
        events: EventCounts::default(),
        interrupts: Mutex::default(),
        domain_ids: Mutex::default(),
        known: Mutex::default(),
        broken: AtomicBool::new(false),
        mapped: AtomicU64::new(0),
    })
}

/// The highest id that the requests of a device carry.
fn last_device(description: &Ivhd) -> u16 {
    let entries = description.devices.iter();
    let named = entries.flat_map(|entry| [Some(*entry.devices.end()), entry.alias]);
    let special = description.special.iter().map(|device| device.device);
    let acpi = description.acpi.iter().map(|device| device.device);
    named
        .flatten()
        .chain(special)
        .chain(acpi)
        .max()
        .unwrap_or(0)
}

/// System management messages go as firmware wants it: it alone knows who sends them. Other
/// messages than interrupts do not pass, whatever it says.
fn set_system_management(table: &mut DeviceTable, description: &Ivhd) {
    let wanted = |settings: DteSettings| (settings & DteSettings::SYSTEM_MANAGEMENT).bits() >> 4;
    for entry in &description.devices {
        if wanted(entry.settings) != 0 {
            for device in entry.devices.clone() {
                table.set_system_management(device, wanted(entry.settings));
            }
        }
    }
    let special = description.special.iter();
    let acpi = description.acpi.iter();
    let others = special.map(|device| (device.device, device.settings));
    for (device, settings) in others.chain(acpi.map(|device| (device.device, device.settings))) {
        table.set_system_management(device, wanted(settings));
    }
}

/// From now on nobody reaches anything.
fn enable(unit: &Unit, interrupt: Option<&EventInterrupt>) {
    let registers = &unit.registers;
    let write = |register, value| {
        // SAFETY: the IOMMU is told of tables that are its own, and stay.
        unsafe { registers.write(register, value) };
    };
    write(Register::DeviceTableBase, unit.devices.lock().table.base());
    write(Register::CommandBufferBase, unit.commands.lock().base());
    write(Register::EventLogBase, unit.log.lock().base());
    for register in [
        Register::CommandHead,
        Register::CommandTail,
        Register::EventHead,
        Register::EventTail,
        Register::ExclusionBase,
        Register::ExclusionLimit,
    ] {
        write(register, 0);
    }
    registers.acknowledge(Status::EVENT_OVERFLOW | Status::EVENT_LOG_INT);

    let flags = unit.description.flags;
    let mut control = Control::CMD_BUF_EN | Control::EVENT_LOG_EN;
    for (flag, bit) in [
        (IvhdFlags::HT_TUNNEL, Control::HT_TUN_EN),
        (IvhdFlags::PASS_POSTED_WRITES, Control::PASS_PW),
        (
            IvhdFlags::RESPONSES_PASS_POSTED_WRITES,
            Control::RES_PASS_PW,
        ),
        (IvhdFlags::ISOCHRONOUS, Control::ISOC),
        (IvhdFlags::COHERENT, Control::COHERENT),
    ] {
        control.set(bit, flags.contains(flag));
    }
    match unit.traits.entries {
        EntryFormat::Basic => {}
        EntryFormat::Wide => control |= Control::GA_EN,
        EntryFormat::WideX2Apic => control |= Control::GA_EN | Control::XT_EN,
    }
    if let Some(EventInterrupt { vector, sender }) = interrupt {
        control |= Control::EVENT_INT_EN;
        if *sender == Sender::Registers {
            write(Register::EventInterrupt, register_value(vector.message()));
            control |= Control::INT_CAP_XT_EN;
        }
    }
    // SAFETY: as above; the IOMMU reads its tables, and writes its log.
    unsafe { registers.set_control(control | Control::IOMMU_EN) };
}

/// The IOMMU may remember what firmware has told it.
fn forget_everything(unit: &Unit, features: Features) -> Result<(), AmdViError> {
    let result = if features.contains(Features::IA_SUP) {
        unit.run([Command::All])
    } else {
        let ids = || 0..=u16::MAX;
        let entries = ids().map(Command::Device);
        let interrupts = ids().map(Command::Interrupts);
        let pages = ids().map(|domain| Command::Pages(domain, IovaRange::ALL));
        unit.run(entries.chain(interrupts).chain(pages))
    };
    result.map_err(|_| AmdViError::Timeout)
}

/// How the IOMMU says that there are events. It does not remap the interrupt itself (AMD 48882,
/// 2.2.5).
#[derive(Debug)]
struct EventInterrupt {
    vector: Box<dyn InterruptVector>,
    sender: Sender,
}

/// What knows the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// The MSI capability of its PCI function.
    Function,
    /// Its own registers.
    Registers,
}

impl EventInterrupt {
    fn connect(
        platform: &Arc<dyn Platform>,
        event: &Arc<Event>,
        features: Features,
        config: Option<&dyn ConfigSpace>,
    ) -> Option<Self> {
        let handler = Callback::event(Arc::clone(event));
        let vector = platform.allocate_vector(None, handler).ok()?;
        let in_registers = Features::XT_SUP | Features::GA_SUP | Features::MSI_CAP_MMIO_SUP;
        let sender = if features.contains(in_registers) {
            Sender::Registers
        } else {
            enable_msi(config?, vector.message()).then_some(Sender::Function)?
        };
        Some(Self { vector, sender })
    }
}

/// The same as the message: fixed delivery to one processor (AMD 48882, 3.4.12).
fn register_value(message: InterruptMessage) -> u64 {
    let destination = message.address >> 12 & 0xff;
    u64::from(message.data & 0xff) << 32 | destination << 8
}

/// Reads the log whenever there is something in it.
async fn watch(
    unit: Weak<Unit>,
    platform: Arc<dyn Platform>,
    event: Arc<Event>,
    interrupt: Option<EventInterrupt>,
) {
    loop {
        match &interrupt {
            None => platform.sleep(POLL_INTERVAL).await,
            Some(_) => event.wait().await,
        }
        let Some(unit) = unit.upgrade() else {
            return;
        };
        unit.read_events();
        drop(unit);
        platform.sleep(LEAST_INTERVAL).await;
    }
}

/// How long an address is that is translated.
fn address_bits(table: &Ivrs) -> u32 {
    let said = table.virtual_bits().map_or(MOST_ADDRESS_BITS, u32::from);
    said.clamp(LEAST_ADDRESS_BITS, MOST_ADDRESS_BITS)
}

/// Firmware says where the interrupts of I/O APICs come from, if they can be remapped.
fn remapping(table: &Ivrs) -> Remapping {
    let mut special = table.units.iter().flat_map(|unit| &unit.special);
    if special.any(|device| device.kind == SpecialKind::IoApic) {
        Remapping::On
    } else {
        Remapping::Off
    }
}

fn entry_format(features: Features) -> EntryFormat {
    if features.contains(Features::GA_SUP | Features::XT_SUP) {
        EntryFormat::WideX2Apic
    } else if features.contains(Features::GA_SUP) {
        EntryFormat::Wide
    } else {
        EntryFormat::Basic
    }
}
