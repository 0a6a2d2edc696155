//! What the tests share: the system under test, its disks and its network card.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use embassy_futures::select::{Either, select};
use kernel::System;
use virtio_blk::Disk;
use virtio_bus::{VirtioBus, VirtioDevice};
use virtio_net::NetDevice;

use crate::outcome::Failure;

/// How long anything may take before it counts as never: the host may be busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// The machine and what was found in it.
pub struct Bench {
    pub system: System,
    disks: RefCell<Vec<(String, Disk)>>,
    net: RefCell<Option<NetDevice>>,
}

impl Bench {
    /// Takes over all devices.
    pub async fn new(system: System) -> Self {
        let net = RefCell::new(system.nets().take());
        let bench = Self {
            system,
            disks: RefCell::default(),
            net,
        };
        bench.collect_disks().await;
        bench
    }

    /// Ends the test as not applicable where the host says that there is no PCI.
    pub fn require_pci(&self) -> Result<(), Failure> {
        if self.system.command_line().get("pci") == Some("none") {
            return Err(Failure::Ignored("the machine has no PCI".into()));
        }
        Ok(())
    }

    /// The disk of this identity.
    pub async fn disk(&self, id: &str) -> Result<Disk, Failure> {
        self.collect_disks().await;
        let disks = self.disks.borrow();
        let disk = disks.iter().rev().find(|(name, _)| name == id);
        disk.map(|(_, disk)| disk.clone())
            .ok_or_else(|| Failure::from("no disk has this identity"))
    }

    /// The disk of this name.
    pub async fn disk_called(&self, name: &str) -> Result<Disk, Failure> {
        self.collect_disks().await;
        let disks = self.disks.borrow();
        let disk = disks.iter().rev().find(|(_, disk)| disk.name() == name);
        disk.map(|(_, disk)| disk.clone())
            .ok_or_else(|| Failure::from("the disk has not been published"))
    }

    /// Borrows the network card for as long as `work` takes.
    pub async fn with_net<T>(
        &self,
        work: impl AsyncFnOnce(&mut NetDevice) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let net = self.net.take().or_else(|| self.system.nets().take());
        let mut net = net.ok_or_else(|| Failure::from("there is no network card"))?;
        let result = work(&mut net).await;
        self.net.replace(Some(net));
        result
    }

    /// What the network card is called.
    pub async fn net_name(&self) -> Result<String, Failure> {
        self.with_net(async |net| Ok(net.name().into())).await
    }

    /// Forgets the network card, so that the next one to be published is used.
    pub fn drop_net(&self) {
        self.net.take();
    }

    /// The virtio bus.
    pub fn virtio(&self) -> &Arc<VirtioBus> {
        self.system.virtio()
    }

    /// The virtio device that is the parent of the interface or disk `name`.
    pub fn virtio_device(&self, name: &str) -> Result<Arc<VirtioDevice>, Failure> {
        let devices = self.virtio().devices();
        let parent = devices.into_iter().find(|device| {
            device
                .node()
                .children()
                .iter()
                .any(|child| child.name() == name)
        });
        parent.ok_or_else(|| Failure::from("no virtio device has this child"))
    }

    /// The time since the machine started.
    pub fn now(&self) -> Duration {
        self.system.platform().now()
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        self.system.platform().sleep(duration).await;
    }

    /// Waits for `work`, but not for ever.
    pub async fn patiently<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        patiently(&self.system, work).await
    }

    /// Takes the disks that have been published since the last time.
    async fn collect_disks(&self) {
        while let Some(disk) = self.system.disks().take() {
            let id = disk.id().await.unwrap_or_default();
            self.disks.borrow_mut().push((id, disk));
        }
    }
}

/// What `work` comes to, unless it takes so long that it counts as never.
pub async fn patiently<T>(system: &System, work: impl Future<Output = T>) -> Result<T, Failure> {
    match select(work, system.platform().sleep(PATIENCE)).await {
        Either::First(result) => Ok(result),
        Either::Second(()) => Err(Failure::from("it did not end within ten seconds")),
    }
}
