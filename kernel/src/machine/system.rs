//! What an application gets from the kernel.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use embassy_executor::Spawner;
use pci::PciBus;
use vdpa::device::VdpaBus;
use vdpa::{Node, Platform};
#[cfg(feature = "mgmt")]
use vdpa_mgmt::Management;
#[cfg(feature = "vduse")]
use vdpa_vduse::Control;
#[cfg(feature = "vhost")]
use vhost_vdpa::VhostRegistry;
use virtio_blk::Disk;
use virtio_bus::Registry;
use virtio_bus::VirtioBus;
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_net::NetDevice;

use crate::machine::console::Lines;
use crate::machine::devices::Devices;
use crate::machine::memory::heap::{self, MemoryFigures};
use crate::machine::shell::{self, ConsoleCommand};
use crate::machine::task;
use crate::pure::command_line::CommandLine;

/// The application's view of the kernel: a handle that can be cloned, and stays on its processor.
#[derive(Clone)]
pub struct System {
    spawner: Spawner,
    command_line: Arc<CommandLine>,
    devices: Arc<Devices>,
}

impl System {
    pub(crate) fn new(
        spawner: Spawner,
        command_line: Arc<CommandLine>,
        devices: Arc<Devices>,
    ) -> Self {
        Self {
            spawner,
            command_line,
            devices,
        }
    }

    /// The command line that the kernel was started with.
    #[must_use]
    pub fn command_line(&self) -> &CommandLine {
        &self.command_line
    }

    /// The root of the device tree.
    #[must_use]
    pub fn devices(&self) -> &Arc<Node> {
        &self.devices.root
    }

    /// The network interfaces that nobody uses yet.
    #[must_use]
    pub fn nets(&self) -> &Arc<Registry<NetDevice>> {
        &self.devices.nets
    }

    /// The disks that nobody uses yet.
    #[must_use]
    pub fn disks(&self) -> &Arc<Registry<Disk>> {
        &self.devices.disks
    }

    /// The PCI bus.
    #[must_use]
    pub fn pci(&self) -> &Arc<PciBus> {
        &self.devices.pci
    }

    /// The vDPA bus.
    #[must_use]
    pub fn vdpa(&self) -> &Arc<VdpaBus> {
        &self.devices.vdpa
    }

    /// Management of the vDPA bus. It can make simulated devices.
    #[cfg(feature = "mgmt")]
    #[must_use]
    pub fn management(&self) -> &Arc<Management> {
        &self.devices.management
    }

    /// The devices that tasks implement. A user takes them with management's `vduse`.
    #[cfg(feature = "vduse")]
    #[must_use]
    pub fn vduse(&self) -> &Arc<Control> {
        &self.devices.vduse
    }

    /// The virtio bus.
    #[must_use]
    pub fn virtio(&self) -> &Arc<VirtioBus> {
        &self.devices.virtio
    }

    /// The driver that makes devices of the vDPA bus devices of the virtio bus.
    #[must_use]
    pub fn virtio_vdpa(&self) -> &Arc<VirtioVdpa> {
        &self.devices.virtio_vdpa
    }

    /// The devices of the vDPA bus that clients can open.
    #[cfg(feature = "vhost")]
    #[must_use]
    pub fn vhost(&self) -> &Arc<VhostRegistry> {
        self.devices.clients.registry()
    }

    /// The kernel's services for drivers.
    #[must_use]
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.devices.platform
    }

    /// How much memory there is, and how much of it is in use.
    #[must_use]
    pub fn memory(&self) -> MemoryFigures {
        heap::figures()
    }

    /// How often the processor had nothing to do and halted since the start.
    #[must_use]
    pub fn halts(&self) -> u64 {
        task::halts()
    }

    /// From now on the processor counts the instructions that it waits for, instead of halting. For
    /// measurements: it keeps a processor of the host busy.
    pub fn count_idle(&self) {
        task::count_idle();
    }

    /// How many instructions the processor has spent waiting since [`System::count_idle`].
    #[must_use]
    pub fn idle_instructions(&self) -> u64 {
        task::idle_instructions()
    }

    /// Starts a task on this processor. `name` is for people.
    pub fn spawn(&self, name: &str, task: impl Future<Output = ()> + 'static) {
        task::spawn_local(self.spawner, name, task);
    }

    /// Offers commands on the console, and `help`, which lists them. Called once. A machine
    /// without a serial port, or whose firmware does not say where it interrupts, has no input.
    pub fn offer_commands(&self, commands: Vec<ConsoleCommand>) {
        if let Some(lines) = Lines::listen(&*self.devices.platform) {
            self.spawn("console", shell::serve(lines, commands));
        }
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System")
            .field("command_line", &self.command_line)
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}
