//! A bus with simulators and their management.

use std::sync::Arc;

use vdpa::device::VdpaBus;
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform};
use vdpa_mgmt::{Handle, Management, SimBlks, SimNets};

/// What simulated devices may take together, in bytes.
const MEMORY: u64 = 4 << 20;
/// Devices that a run begins with, at most.
const DEVICES_MAX: usize = 8;

pub struct Machine {
    pub platform: Arc<FakePlatform>,
    pub management: Arc<Management>,
}

impl Machine {
    pub fn new() -> Self {
        let platform = FakePlatform::new();
        platform.leave_memory(MEMORY);
        let management = Management::new(VdpaBus::new("vdpa"), |node| Handle::named(node.name()));
        let shared = Arc::clone(&platform) as Arc<dyn Platform>;
        let root = Node::root("machine");
        platform.block_on(async {
            let nets = SimNets::new(&root, &shared);
            management.register(nets).await.expect("the first");
            let disks = SimBlks::new(&root, &shared);
            management.register(disks).await.expect("the second");
        });
        Self {
            platform,
            management,
        }
    }

    /// The names of all devices.
    pub fn names(&self) -> Vec<String> {
        let devices = self.platform.block_on(self.management.devices(None));
        let devices = devices.expect("no device was asked for by name");
        devices.into_iter().map(|device| device.name).collect()
    }

    pub fn is_full(&self) -> bool {
        self.names().len() >= DEVICES_MAX
    }

    /// Every device that was made can be deleted, and nothing is left of it.
    pub fn clear(self) {
        for name in self.names() {
            let deleted = self.platform.block_on(self.management.delete(&name));
            deleted.expect("every device here was made here");
        }
        assert!(self.names().is_empty());
        self.platform.run_until_stalled();
        assert!(self.platform.tasks().is_empty(), "a worker is left");
        assert_eq!(self.platform.heap().outstanding(), 0, "memory is left");
    }
}
