//! From an unknown function to a virtio driver with a running queue, through every layer.

use std::sync::Arc;

use spin::Mutex;
use vdpa::Features;
use vdpa::bus::{Bound, Claim, Driver, ProbeError};
use vdpa::device::VdpaBus;
use vdpa::ops::OpError;
use vdpa::platform::BoxFuture;
use vdpa::testing::DeviceRing;
use virtio::DeviceStatus;
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_bus::{Completion, VirtQueue, VirtioBus, VirtioClaim, VirtioDevice, VirtioId};
use virtio_pci::vp_vdpa::VpVdpa;
use virtq::{DmaBuffer, Readable, RingAddresses, RingFeatures};

use crate::fakes::machine::Machine;
use crate::fakes::virtio::{FakeVirtio, Plan, version_1};

/// What the driver below leaves for the test.
struct Running {
    device: VirtioClaim,
    queue: VirtQueue<Readable>,
    features: Features,
}

/// Drives any network device with one queue.
struct OneQueue(Arc<Mutex<Option<Running>>>);

impl Driver<VirtioDevice> for OneQueue {
    fn name(&self) -> &'static str {
        "one_queue"
    }

    fn ids(&self) -> &[VirtioId] {
        &[VirtioId {
            device_type: virtio::Id::Net,
        }]
    }

    fn probe<'a>(
        &'a self,
        device: Claim<VirtioDevice>,
        _: Option<&'a VirtioId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            let device = VirtioClaim::new(device);
            let features = device.negotiate(Features::EMPTY, Features::EMPTY).await?;
            let queue = device
                .create_queue(1, "tx", 8, Completion::Interrupt)
                .await?;
            device.start().await?;
            *self.0.lock() = Some(Running {
                device,
                queue,
                features,
            });
            Ok(Box::new(()) as Box<dyn Bound>)
        })
    }
}

#[test]
fn a_function_becomes_a_virtio_device_whose_queue_carries_a_buffer() {
    let (device, function) = FakeVirtio::new(Plan::default());
    let machine = Machine::with_functions(&[&function]);
    let (vdpa_bus, virtio_bus) = (VdpaBus::new("vdpa"), VirtioBus::new("virtio"));
    let left = Arc::default();
    machine.platform.block_on(async {
        let driver = OneQueue(Arc::clone(&left));
        virtio_bus.add_driver(Arc::new(driver)).await.unwrap();
        let driver = VirtioVdpa::new(Arc::clone(&virtio_bus));
        vdpa_bus.add_driver(Arc::new(driver)).await.unwrap();
        let driver = VpVdpa::new(machine.platform(), Arc::clone(&vdpa_bus));
        machine.pci.add_driver(Arc::new(driver)).await.unwrap();
    });
    machine.enumerate();

    let Running {
        device: driver,
        mut queue,
        features,
    } = left.lock().take().unwrap();
    assert_eq!(driver.node().path(), "pci0000:00:01.0 -> vdpa0 -> virtio0");
    assert_eq!(features.bits(), version_1());
    let registers = device.state.lock().queues[1].clone();
    assert!(registers.enabled && registers.size == 8);
    let status = DeviceStatus::from_bits_retain(device.state.lock().status);
    assert!(status.contains(DeviceStatus::DRIVER_OK));

    // The device's side of the queue, at the addresses that arrived in its registers.
    let address = registers.address();
    let addresses = RingAddresses {
        descriptor: address.descriptor,
        driver: address.driver,
        device: address.device,
    };
    let ring_features = RingFeatures::default();
    let mut ring = DeviceRing::new(machine.platform.heap(), addresses, 8, ring_features);
    let mut buffer = DmaBuffer::new(&driver.dma(), 5).unwrap();
    buffer.copy_from_slice(b"hello");
    assert!(queue.ring.add(Readable { buffer, len: 5 }).is_ok());
    queue.kick();
    assert_eq!(device.kicks(1), 1);
    let request = ring.pop().unwrap();
    assert_eq!(ring.read(&request), b"hello");
    ring.complete(request.head.into(), 0);
    device.interrupt_queue(1, &machine.platform);
    assert!(queue.event.take());
    assert!(queue.ring.take().unwrap().is_some());

    machine
        .platform
        .block_on(machine.pci.remove_driver("vp_vdpa"));
    assert!(driver.check().is_err());
    assert_eq!(device.state.lock().status, 0);
    assert_eq!(machine.platform.vectors_in_use(), 0);
    assert_eq!(device.violations(), Vec::<String>::new());

    // References to the device and its queue that are left block no other use of the function, and
    // no longer reach it.
    let claim = machine.device("pci0000:00:01.0").claim();
    assert!(claim.is_ok());
    let buffer = DmaBuffer::new(&driver.dma(), 5).unwrap();
    assert!(queue.ring.add(Readable { buffer, len: 5 }).is_ok());
    queue.kick();
    assert_eq!(device.kicks(1), 1);
    assert_eq!(
        machine.platform.block_on(driver.reset()),
        Err(OpError::Gone)
    );
    assert_eq!((driver.queue_count(), driver.config_size()), (0, 0));
}
