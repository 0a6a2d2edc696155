//! The kernel's start, from the boot code to the application.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::pin::Pin;

use boot::{BootInfo, BootMemory, MemoryKind, MemoryRegion};
use embassy_executor::Spawner;
use vdpa::Platform;

use crate::machine::devices::{self, Devices};
#[cfg(feature = "iommu")]
use crate::machine::iommus;
use crate::machine::memory::{self, heap, mmio};
use crate::machine::platform::KernelPlatform;
use crate::machine::system::System;
use crate::machine::time::calibrate::{self, Frequencies};
use crate::machine::time::{clock, timer};
use crate::machine::{console, cpu, exit, interrupts, logger, task};
use crate::pure::acpi::Acpi;
#[cfg(feature = "iommu")]
use crate::pure::acpi::IommuTables;
use crate::pure::command_line::CommandLine;
use crate::pure::data_paths::DataPaths;
use crate::pure::exit_code::{ExitCode, Termination};
use crate::pure::memory::regions;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An application, running.
pub type MainFuture = Pin<Box<dyn Future<Output = ExitCode>>>;

unsafe extern "Rust" {
    /// The application, which defines this symbol with [`entry!`](crate::entry).
    safe fn __ringway_main(system: System) -> MainFuture;
}

/// Turns an application's `main` into what the kernel runs. For [`entry!`](crate::entry).
#[doc(hidden)]
pub fn main_future<F>(main: F) -> MainFuture
where
    F: Future<Output: Termination> + 'static,
{
    Box::pin(async move { main.await.exit_code() })
}

/// What the boot code calls. `boot_memory` is of use until the kernel has page tables of its own.
#[unsafe(no_mangle)]
fn __ringway_kernel(info: BootInfo, boot_memory: &BootMemory) -> ! {
    let mut phases = Phases::new();
    console::init();
    phases.end("console");
    interrupts::init_exceptions();
    phases.end("exceptions");
    let acpi = info
        .rsdp
        .map(|rsdp| Acpi::read(boot_memory, rsdp))
        .unwrap_or_default();
    phases.end("ACPI");
    #[cfg(feature = "iommu")]
    let mut iommus = IommuTables::default();
    init_memory(&info, || {
        #[cfg(feature = "iommu")]
        if let Some(rsdp) = info.rsdp {
            iommus = IommuTables::copy(boot_memory, rsdp);
        }
    });
    phases.end("memory");
    let frequencies = init_time(phases.start, &acpi);
    phases.end("clock");

    let line = CommandLine::new(&info.command_line);
    logger::init(&line);
    let memory = heap::figures().total >> 20;
    let megahertz = frequencies.tsc / 1_000_000;
    log::info!("Ringway {VERSION}, x86_64, {memory} MiB, TSC {megahertz} MHz");
    log::debug!("the TSC's rate is {}", frequencies.source);
    phases.log();
    if let Some(power_off) = acpi.power_off {
        exit::set_power_off(power_off);
    }
    let firmware = Firmware {
        acpi,
        #[cfg(feature = "iommu")]
        iommus,
    };
    task::run(|spawner| main(spawner, line, info, firmware))
}

/// What firmware says of the machine.
struct Firmware {
    acpi: Acpi,
    #[cfg(feature = "iommu")]
    iommus: IommuTables,
}

/// The first task: finds the devices, runs the application, brings the devices to rest.
async fn main(spawner: Spawner, line: CommandLine, info: BootInfo, firmware: Firmware) {
    let acpi = firmware.acpi;
    let kernel = Arc::new(KernelPlatform::new(acpi.lines.clone()));
    let platform = Arc::clone(&kernel) as Arc<dyn Platform>;
    let segments = devices::config_access(&platform, &acpi, &line);
    #[cfg(feature = "iommu")]
    if let Err(error) = kernel.start_iommus(&line, &firmware.iommus, &segments) {
        log::error!("{error}");
        exit::exit(ExitCode::FAILURE);
    }
    #[cfg(not(feature = "iommu"))]
    if line.get("iommu") == Some("required") {
        log::error!("iommu=required: this kernel was built without drivers for IOMMUs");
        exit::exit(ExitCode::FAILURE);
    }
    let devices = Arc::new(Devices::new(platform, DataPaths::new(&line)).await);
    #[cfg(feature = "iommu")]
    kernel.iommus().drive_virtio(&devices.virtio).await;
    #[cfg(feature = "iommu")]
    let _nodes = iommus::Nodes::new(kernel.iommus().set(), &devices.root);
    let memory: Vec<_> = info.memory.iter().map(range).collect();
    devices.find(&acpi, &line, &memory, segments).await;
    let system = System::new(spawner, Arc::new(line), Arc::clone(&devices));
    let code = __ringway_main(system).await;
    devices.shutdown().await;
    exit::exit(code)
}

/// Sets up the heap and the kernel's page tables.
///
/// `with_boot_tables` is called when there is a heap, and what firmware left can still be read.
fn init_memory(info: &BootInfo, with_boot_tables: impl FnOnce()) {
    assert!(
        cpu::has_no_execute(),
        "the processor cannot forbid execution"
    );
    let memory = |kind| {
        info.memory
            .iter()
            .filter(move |region| region.kind == kind)
            .map(range)
    };
    // The first MiB is the firmware's, whatever the memory map says.
    const FIRST_MIB: Range<u64> = 0..1 << 20;
    let taken = memory(MemoryKind::Reserved).chain([FIRST_MIB, boot::image()]);
    let free_outside = |more: Range<u64>| {
        regions::free_regions(memory(MemoryKind::Usable), &taken.clone().chain([more]))
    };
    // The boot page tables map the lower part of memory, which then holds the kernel's page tables;
    // those map the rest too.
    let lower = free_outside(boot::IDENTITY_MAPPED..u64::MAX);
    let upper = free_outside(0..boot::IDENTITY_MAPPED);
    for region in &lower {
        // SAFETY: the region is free, and mapped at its address by these page tables and by the
        // next ones.
        unsafe { heap::add(region.clone()) };
    }
    with_boot_tables();
    memory::init(lower.iter().chain(&upper).cloned())
        .expect("the memory map holds enough memory for its page tables");
    for region in upper {
        // SAFETY: the region is free, and the kernel's page tables map it.
        unsafe { heap::add(region) };
    }
    mmio::protect(memory(MemoryKind::Usable));
}

/// Starts the local APIC, the clock, which counts from `start`, and the timer.
fn init_time(start: u64, acpi: &Acpi) -> Frequencies {
    if let Err(error) = interrupts::init() {
        panic!("{error}");
    }
    let frequencies =
        calibrate::frequencies(acpi.pm_timer).expect("a PC has a clock of known frequency");
    clock::init(start, frequencies.tsc);
    timer::init(frequencies.apic_timer);
    frequencies
}

fn range(region: &MemoryRegion) -> Range<u64> {
    region.start..region.start.saturating_add(region.size)
}

/// When the parts of the start ended, by the time-stamp counter: the clock is one of the parts.
struct Phases {
    start: u64,
    ends: heapless::Vec<(&'static str, u64), 8>,
}

impl Phases {
    fn new() -> Self {
        Self {
            start: cpu::tsc(),
            ends: heapless::Vec::new(),
        }
    }

    fn end(&mut self, name: &'static str) {
        // There are fewer phases than places.
        let _: Result<(), (&str, u64)> = self.ends.push((name, cpu::tsc()));
    }

    fn log(&self) {
        for (name, end) in &self.ends {
            let time = clock::at(*end).as_micros();
            log::debug!("start: {name} done at {time} us");
        }
    }
}
