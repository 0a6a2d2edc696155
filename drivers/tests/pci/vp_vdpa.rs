//! The parent driver: operations as register accesses, bounded waits, shared vectors, clean failures.

mod conformance;
mod doorbells;
mod interrupts;
mod operations;
mod probe;
mod removal;
mod suspend;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use drivers::vp_vdpa::VpVdpa;
use vdpa::Features;
use vdpa::device::{VdpaBus, VdpaDevice};
use vdpa::ops::{OpError, QueueAddress};
use vdpa::platform::Callback;
use virtio::DeviceStatus;
use virtq::DmaAddr;

use crate::fakes::function::FakeFunction;
use crate::fakes::machine::Machine;
use crate::fakes::virtio::{FakeVirtio, Plan};

const NAME: &str = "pci0000:00:01.0";

struct Bench {
    machine: Machine,
    device: Arc<FakeVirtio>,
    function: Arc<FakeFunction>,
    vdpa_bus: Arc<VdpaBus>,
    /// The function's configuration space before any driver saw it.
    before: Vec<u8>,
}

impl Bench {
    /// Enumerated, with the driver registered but the device not on the bus yet.
    fn new(plan: Plan) -> Self {
        let (device, function) = FakeVirtio::new(plan);
        let machine = Machine::with_functions(&[&function]);
        machine.enumerate();
        let before = function.snapshot();
        Self {
            machine,
            device,
            function,
            vdpa_bus: VdpaBus::new("vdpa"),
            before,
        }
    }

    /// Registers the driver, which probes.
    fn probe(&self) {
        let driver = VpVdpa::new(self.machine.platform(), Arc::clone(&self.vdpa_bus));
        let added = self.machine.pci.add_driver(Arc::new(driver));
        self.machine.platform.block_on(added).unwrap();
    }

    fn probed(plan: Plan) -> (Self, Arc<VdpaDevice>) {
        let bench = Self::new(plan);
        bench.probe();
        let devices = bench.vdpa_bus.devices();
        let device = Arc::clone(devices.first().expect("the function is driven"));
        (bench, device)
    }

    /// The probe has failed and left nothing behind.
    #[track_caller]
    fn assert_refused(&self) {
        self.probe();
        assert!(self.vdpa_bus.devices().is_empty());
        assert_eq!(self.machine.pci.driver_of(&self.machine.device(NAME)), None);
        assert_eq!(self.function.snapshot(), self.before);
        assert_eq!(self.machine.platform.vectors_in_use(), 0);
        self.machine.device(NAME).claim().unwrap();
    }

    fn run<F: Future>(&self, future: F) -> F::Output {
        self.machine.platform.block_on(future)
    }

    /// Negotiates `features` and readies every queue with a callback.
    fn start(&self, vdpa: &VdpaDevice, features: u64, calls: &Calls) -> Result<(), OpError> {
        self.run(async {
            vdpa.reset().await?;
            vdpa.set_status(driver()).await?;
            vdpa.set_driver_features(Features::from_bits(features))?;
            vdpa.set_status(driver() | DeviceStatus::FEATURES_OK)
                .await?;
            for queue in 0..vdpa.queue_count() {
                vdpa.set_queue_callback(queue, Some(calls.callback(usize::from(queue))))?;
                vdpa.set_queue_size(queue, 16)?;
                vdpa.set_queue_address(queue, address(queue))?;
                vdpa.start_queue(queue).await?;
            }
            vdpa.set_config_callback(Some(calls.callback(CONFIG)))?;
            vdpa.set_status(running()).await
        })
    }
}

fn driver() -> DeviceStatus {
    DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER
}

fn running() -> DeviceStatus {
    driver() | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK
}

fn address(queue: u16) -> QueueAddress {
    let base = 0x12_3456_0000 + (u64::from(queue) << 36);
    QueueAddress {
        descriptor: DmaAddr(base),
        driver: DmaAddr(base + 0x100),
        device: DmaAddr(base + 0x200),
    }
}

/// The place of the configuration callback; queues come before it.
const CONFIG: usize = 3;

/// How often each callback was called.
#[derive(Default)]
struct Calls(Arc<[AtomicU32; 4]>);

impl Calls {
    fn callback(&self, at: usize) -> Callback {
        let counts = Arc::clone(&self.0);
        Callback::new(move || {
            counts[at].fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Takes the counts.
    fn take(&self) -> [u32; 4] {
        self.0
            .each_ref()
            .map(|count| count.swap(0, Ordering::Relaxed))
    }
}
