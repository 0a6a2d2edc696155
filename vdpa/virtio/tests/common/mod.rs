//! A fake vDPA device with the virtio bus and one driver above it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use vdpa::bus::Driver;
use vdpa::device::{DeviceKind, Removal, Removed, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::testing::{FakeParent, FakePlatform, Resets};
use vdpa::{Features, Node, Platform};
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_bus::{VirtioBus, VirtioDevice};

/// What the device is.
pub(crate) struct Hardware<'a> {
    pub(crate) device_type: virtio::Id,
    pub(crate) features: Features,
    pub(crate) queue_sizes: &'a [u16],
    pub(crate) config: &'a [u8],
}

/// Everything from the device up to the driver under test.
pub(crate) struct World {
    pub(crate) platform: Arc<FakePlatform>,
    pub(crate) parent: Arc<FakeParent>,
    pub(crate) root: Arc<Node>,
    virtio: Arc<VirtioBus>,
    vdpa: Arc<VdpaBus>,
    device: Arc<VdpaDevice>,
}

impl World {
    /// Brings a device up as far as the driver takes it, after `set_up` has told it how to behave.
    pub(crate) fn new(
        hardware: &Hardware<'_>,
        driver: Arc<dyn Driver<VirtioDevice>>,
        platform: Arc<FakePlatform>,
        set_up: impl FnOnce(&FakeParent),
    ) -> Self {
        let kernel = Arc::clone(&platform) as Arc<dyn Platform>;
        Self::on_kernel(hardware, driver, platform, kernel, set_up)
    }

    /// As [`World::new`], with another kernel than the fake platform's.
    pub(crate) fn on_kernel(
        hardware: &Hardware<'_>,
        driver: Arc<dyn Driver<VirtioDevice>>,
        platform: Arc<FakePlatform>,
        kernel: Arc<dyn Platform>,
        set_up: impl FnOnce(&FakeParent),
    ) -> Self {
        let device_type = u32::from(u8::from(hardware.device_type));
        let parent = FakeParent::new(
            &platform,
            device_type,
            hardware.features,
            hardware.queue_sizes,
            hardware.config,
        );
        set_up(&parent);
        let root = Node::root("root");
        let virtio = VirtioBus::new("virtio");
        let vdpa = VdpaBus::new("vdpa");
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&root),
            dma: IsolationUnit::new(&root, None, None),
            platform: kernel,
            kind: DeviceKind::Software,
            name: None,
        };
        let device = platform.block_on(async {
            let bus_driver = Arc::new(VirtioVdpa::new(Arc::clone(&virtio)));
            virtio
                .add_driver(driver)
                .await
                .expect("the driver can be registered");
            vdpa.add_driver(bus_driver)
                .await
                .expect("the bus driver can be registered");
            vdpa.register(parent.ops(), config)
                .await
                .expect("the device can be registered")
        });
        Self {
            platform,
            parent,
            root,
            virtio,
            vdpa,
            device,
        }
    }

    /// The only device of the virtio bus.
    pub(crate) fn device(&self) -> Arc<VirtioDevice> {
        self.virtio.devices().remove(0)
    }

    /// The driver of the only device of the virtio bus.
    pub(crate) fn driver(&self) -> Option<String> {
        self.virtio.driver_of(&self.device())
    }

    /// Takes the device away.
    pub(crate) fn remove(&self, removal: Removal) -> Removed {
        self.platform.block_on(self.removal(removal))
    }

    /// Takes the device away, for a test that runs the tasks itself.
    pub(crate) fn removal(&self, removal: Removal) -> impl Future<Output = Removed> {
        self.vdpa.unregister(&self.device, removal)
    }

    /// Takes the driver under test away.
    pub(crate) fn remove_driver(&self, name: &str) {
        self.platform.block_on(self.virtio.remove_driver(name));
    }

    /// Begins to take the driver away from a device that takes long to reset.
    pub(crate) fn begin_to_remove_driver(&self, name: &'static str) {
        self.parent.set_resets(Resets::Never);
        let bus = Arc::clone(&self.virtio);
        self.platform.spawn(
            "removal",
            Box::pin(async move { bus.remove_driver(name).await }),
        );
        self.platform.run_until_stalled();
        assert!(self.platform.tasks().iter().any(|task| task == "removal"));
    }

    /// Lets another driver claim the device.
    pub(crate) fn add_driver(&self, driver: Arc<dyn Driver<VirtioDevice>>) {
        let added = self.platform.block_on(self.virtio.add_driver(driver));
        added.expect("the driver can be registered");
    }

    /// What the node of this name tells, as lines.
    pub(crate) fn facts(&self, name: &str) -> Vec<String> {
        let node = self.find(name).expect("the node is in the tree");
        let report = node.report().expect("the node has a report");
        report
            .facts
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect()
    }

    /// The node of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Node>> {
        let mut rest = vec![Arc::clone(&self.root)];
        while let Some(node) = rest.pop() {
            if node.name() == name {
                return Some(node);
            }
            rest.extend(node.children());
        }
        None
    }

    /// How many bytes of DMA memory are in use.
    pub(crate) fn memory(&self) -> usize {
        self.platform.heap().outstanding()
    }
}

/// Counts how often it is woken.
#[derive(Default)]
pub(crate) struct Alarm(AtomicUsize);

impl Alarm {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls with a waker that wakes `alarm`.
pub(crate) fn with_alarm<R>(alarm: &Arc<Alarm>, poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
    poll(&mut Context::from_waker(&Waker::from(Arc::clone(alarm))))
}

/// The device disappears.
pub(crate) fn surprise() -> Removal {
    // SAFETY: the device is a simulation, whose workers the bus ends before it goes.
    unsafe { Removal::surprise() }
}
