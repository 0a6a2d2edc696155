//! From a host bridge to devices on the PCI bus.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use vdpa::bus::BusDevice;
use vdpa::{Node, Platform};

use super::access::ConfigAccess;
use super::assign::{Windows, assign};
use super::device::{PciBus, PciDevice};
use super::scan::scan;

/// One PCI segment below its host bridge.
pub struct PciRoot {
    access: Arc<dyn ConfigAccess>,
    platform: Arc<dyn Platform>,
    windows: Windows,
}

impl PciRoot {
    /// The segment that `access` reaches. Registers without an address get one from `windows`.
    #[must_use]
    pub fn new(
        access: Arc<dyn ConfigAccess>,
        platform: Arc<dyn Platform>,
        windows: Windows,
    ) -> Self {
        Self {
            access,
            platform,
            windows,
        }
    }

    /// Finds every function, gives addresses to registers that have none, and puts the functions
    /// on the bus, where drivers may claim them at once. Returns how many there are.
    ///
    /// A function's node hangs below that of its bridge, or below `root`.
    pub async fn enumerate(self, bus: &Arc<PciBus>, root: &Arc<Node>) -> usize {
        let mut functions = scan(&self.access);
        assign(&mut functions, &self.windows);
        let mut devices: Vec<Arc<PciDevice>> = Vec::new();
        for function in functions {
            let parent = function
                .bridge
                .map_or(root, |bridge| devices[bridge].node());
            let node = Node::child(parent, &format!("pci{}", function.config.address()));
            let platform = Arc::clone(&self.platform);
            let (config, identity) = (function.config, function.identity);
            devices.push(Arc::new(PciDevice::new(
                node,
                platform,
                config,
                identity,
                function.bars,
            )));
        }
        for device in &devices {
            if let Err(error) = bus.add_device(Arc::clone(device)).await {
                log::error!("pci {}: {error}", device.address());
            } else if bus.driver_of(device).is_none() {
                log::debug!("pci {}: no driver ({})", device.address(), device.alias());
            }
        }
        devices.len()
    }
}

impl fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segment = self.access.segment();
        f.debug_struct("PciRoot")
            .field("segment", &segment)
            .finish_non_exhaustive()
    }
}
