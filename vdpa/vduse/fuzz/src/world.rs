//! A machine with one device of a task.

use std::sync::Arc;
use std::time::Duration;

use vdpa::device::{DeviceKind, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::testing::FakePlatform;
use vdpa::{Features, Node, Platform};
use vdpa_vduse::protocol::{DeviceConfig, ProtocolFeatures, QueueSetup};
use vdpa_vduse::{Control, Options, Task};

use super::input::Input;

/// How long the task has for an answer.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// What the device is called.
pub const NAME: &str = "device";
/// The size of its configuration space.
pub const CONFIG: usize = 12;
/// The largest size of its queues.
pub const QUEUE_SIZE: u16 = 16;

pub struct World {
    pub platform: Arc<FakePlatform>,
    pub control: Arc<Control>,
    pub bus: Arc<VdpaBus>,
    root: Arc<Node>,
}

impl World {
    pub fn new() -> Self {
        let platform = FakePlatform::new();
        let kernel = Arc::clone(&platform) as Arc<dyn Platform>;
        Self {
            control: Control::new(&kernel),
            platform,
            bus: VdpaBus::new("vdpa"),
            root: Node::root("root"),
        }
    }

    pub fn kernel(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    /// A device with so many queues, as the input wants it, and its task.
    pub fn create(&self, input: &mut Input, queues: u16, spaces: u16) -> Task {
        let base = virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM | virtio::F::IN_ORDER;
        let ring = virtio::F::RING_PACKED | virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX;
        let features = Features::from(base) | ring.into();
        let config = DeviceConfig {
            name: NAME.into(),
            vendor_id: 0,
            device_id: 1,
            features: features.bits() as u64,
            queues: queues.into(),
            queue_align: 1,
            groups: spaces.into(),
            address_spaces: spaces.into(),
            config: (0..CONFIG as u8).collect(),
        };
        let mut options = Options {
            deadline: DEADLINE,
            in_flight: 1 + input.below(8) as u16,
            ..Options::default()
        };
        if input.below(8) == 1 {
            options.features = ProtocolFeatures(0);
        }
        let created = self.control.create(&config, options);
        created.expect("a device as any other");
        let task = self.control.open(NAME).expect("it is nobody's");
        for index in 0..queues {
            let setup = setup(index, index % spaces);
            task.set_up_queue(setup).expect("it is not attached");
        }
        task
    }

    /// Puts the device on the bus.
    pub fn attach(&self) -> Arc<VdpaDevice> {
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&self.root),
            dma: IsolationUnit::new(&self.root, None, None),
            platform: self.kernel(),
            kind: DeviceKind::Software,
            name: None,
        };
        let ops = self.control.attach(NAME).expect("it is complete");
        self.platform
            .block_on(self.bus.register(ops, config))
            .expect("nothing is short")
    }

    /// What is left when everybody has gone.
    pub fn check_nothing_is_left(&self) {
        self.platform.block_on(self.platform.sleep(2 * DEADLINE));
        self.control.destroy(NAME).expect("nobody has it");
        assert!(self.platform.tasks().is_empty(), "a task is left");
        assert_eq!(self.platform.heap().outstanding(), 0, "memory is left");
    }
}

pub fn setup(index: u16, group: u16) -> QueueSetup {
    QueueSetup {
        index: index.into(),
        size_max: QUEUE_SIZE,
        group: group.into(),
    }
}
