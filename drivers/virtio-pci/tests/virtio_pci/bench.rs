//! A machine with one virtio function and a parent driver for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vdpa::Features;
use vdpa::device::{VdpaBus, VdpaClaim};
use vdpa::keeper::hold;
use vdpa::ops::{OpError, QueueAddress};
use vdpa::platform::Callback;
use virtio::DeviceStatus;
use virtio_pci::ifcvf::Ifcvf;
use virtio_pci::vp_vdpa::VpVdpa;
use virtq::DmaAddr;

use crate::fakes::function::FakeFunction;
use crate::fakes::machine::Machine;
use crate::fakes::virtio::{FakeVirtio, Plan, access_platform};

/// The function of a bench.
pub const NAME: &str = "pci0000:00:01.0";

/// Which parent driver drives the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    VpVdpa,
    Ifcvf,
}

impl Driven {
    pub const BOTH: [Self; 2] = [Self::VpVdpa, Self::Ifcvf];

    /// The function as one that the driver has a row for.
    pub fn plan(self, plan: Plan) -> Plan {
        match self {
            Self::VpVdpa => plan,
            Self::Ifcvf => {
                let (device, subdevice) = match plan.device {
                    0x1042 => (0x1042, 0x0002),
                    _ => (0x1041, 0x001a),
                };
                Plan {
                    device,
                    subvendor: 0x8086,
                    subdevice,
                    features: plan.features | self.features(),
                    ..plan
                }
            }
        }
    }

    /// What it demands beyond `VERSION_1`.
    pub fn features(self) -> u128 {
        match self {
            Self::VpVdpa => 0,
            Self::Ifcvf => access_platform(),
        }
    }
}

pub struct Bench {
    pub machine: Machine,
    pub device: Arc<FakeVirtio>,
    pub function: Arc<FakeFunction>,
    pub vdpa_bus: Arc<VdpaBus>,
    pub driven: Driven,
    /// The function's configuration space before any driver saw it.
    pub before: Vec<u8>,
}

impl Bench {
    /// Enumerated, with the driver registered but the device not on the bus yet.
    pub fn new(plan: Plan) -> Self {
        Self::of(Driven::VpVdpa, plan)
    }

    /// The same with a driver of the test's choice.
    pub fn of(driven: Driven, plan: Plan) -> Self {
        let (device, function) = FakeVirtio::new(driven.plan(plan));
        let machine = Machine::with_functions(&[&function]);
        machine.enumerate();
        let before = function.snapshot();
        Self {
            machine,
            device,
            function,
            vdpa_bus: VdpaBus::new("vdpa"),
            driven,
            before,
        }
    }

    /// Registers the driver, which probes.
    pub fn probe(&self) {
        let (platform, bus) = (self.machine.platform(), Arc::clone(&self.vdpa_bus));
        let pci = &self.machine.pci;
        let added = match self.driven {
            Driven::VpVdpa => self.run(pci.add_driver(Arc::new(VpVdpa::new(platform, bus)))),
            Driven::Ifcvf => self.run(pci.add_driver(Arc::new(Ifcvf::new(platform, bus)))),
        };
        added.unwrap();
    }

    pub fn probed(plan: Plan) -> (Self, Arc<VdpaClaim>) {
        Self::probed_by(Driven::VpVdpa, plan)
    }

    pub fn probed_by(driven: Driven, plan: Plan) -> (Self, Arc<VdpaClaim>) {
        let bench = Self::of(driven, plan);
        bench.probe();
        let devices = bench.vdpa_bus.devices();
        let device = devices.first().expect("the function is driven");
        let device = bench.run(hold(&bench.vdpa_bus, device)).unwrap();
        (bench, Arc::new(device))
    }

    /// The probe has failed and left nothing behind.
    #[track_caller]
    pub fn assert_refused(&self) {
        self.probe();
        assert!(self.vdpa_bus.devices().is_empty());
        assert_eq!(self.machine.pci.driver_of(&self.machine.device(NAME)), None);
        assert_eq!(self.function.snapshot(), self.before);
        assert_eq!(self.machine.platform.vectors_in_use(), 0);
        self.machine.device(NAME).claim().unwrap();
    }

    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.machine.platform.block_on(future)
    }

    /// Negotiates `features`, with those that the driver demands, and readies every queue with a
    /// callback.
    pub fn start(&self, vdpa: &VdpaClaim, features: u128, calls: &Calls) -> Result<(), OpError> {
        self.run(async {
            vdpa.reset().await?;
            vdpa.set_status(driver()).await?;
            vdpa.set_driver_features(Features::from_bits(features | self.driven.features()))?;
            vdpa.set_status(driver() | DeviceStatus::FEATURES_OK)
                .await?;
            for queue in 0..vdpa.queue_count() {
                vdpa.set_queue_callback(queue, Some(calls.callback(usize::from(queue))))?;
                vdpa.set_queue_size(queue, 16)?;
                // SAFETY: the fake has no memory to find there.
                unsafe { vdpa.set_queue_address(queue, address(queue)) }?;
                vdpa.start_queue(queue).await?;
            }
            vdpa.set_config_callback(Some(calls.callback(CONFIG)))?;
            vdpa.set_status(running()).await
        })
    }
}

pub fn driver() -> DeviceStatus {
    DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER
}

pub fn running() -> DeviceStatus {
    driver() | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK
}

pub fn address(queue: u16) -> QueueAddress {
    let base = 0x12_3456_0000 + (u64::from(queue) << 36);
    QueueAddress {
        descriptor: DmaAddr(base),
        driver: DmaAddr(base + 0x100),
        device: DmaAddr(base + 0x200),
    }
}

/// The place of the configuration callback; queues come before it.
pub const CONFIG: usize = 3;

/// How often each callback was called.
#[derive(Default)]
pub struct Calls(Arc<[AtomicU32; 4]>);

impl Calls {
    pub fn callback(&self, at: usize) -> Callback {
        let counts = Arc::clone(&self.0);
        Callback::new(move || {
            counts[at].fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Takes the counts.
    pub fn take(&self) -> [u32; 4] {
        self.0
            .each_ref()
            .map(|count| count.swap(0, Ordering::Relaxed))
    }
}
