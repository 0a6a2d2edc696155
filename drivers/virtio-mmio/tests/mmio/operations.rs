//! Operations as register accesses, also of devices that do not do as they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vdpa::ops::{OpError, QueueAddress};
use vdpa::platform::Callback;
use vdpa::testing::FakePlatform;
use vdpa::{Features, Platform, VdpaOps};
use virtio::DeviceStatus;
use virtio_mmio::Parent;
use virtq::{DmaAddr, NotifyFormat};

use super::device::{Decodes, FakeDevice, Plan, Reset, description, feature};

struct Bench {
    platform: Arc<FakePlatform>,
    device: Arc<FakeDevice>,
    parent: Parent,
    calls: Arc<AtomicU32>,
}

const RUNNING: DeviceStatus = DeviceStatus::ACKNOWLEDGE
    .union(DeviceStatus::DRIVER)
    .union(DeviceStatus::FEATURES_OK)
    .union(DeviceStatus::DRIVER_OK);

impl Bench {
    fn new(plan: Plan) -> Self {
        let platform = FakePlatform::new();
        let device = FakeDevice::new(&platform, plan);
        let services: Arc<dyn Platform> = Arc::clone(&platform) as _;
        let place = description();
        // SAFETY: the device is there.
        let parent = platform.block_on(unsafe { Parent::probe(&place, &services) });
        let parent = parent.unwrap();
        Self {
            platform,
            device,
            parent,
            calls: Arc::default(),
        }
    }

    /// Brings the device up as a driver does.
    fn start(&self, features: u128) -> Result<(), OpError> {
        let (parent, calls) = (&self.parent, Arc::clone(&self.calls));
        let callback = Callback::new(move || {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        self.platform.block_on(async {
            parent.reset().await?;
            let driver = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
            parent.set_status(driver).await?;
            let features = features | feature(virtio::F::VERSION_1);
            parent.set_driver_features(Features::from_bits(features))?;
            parent
                .set_status(driver | DeviceStatus::FEATURES_OK)
                .await?;
            for queue in 0..2 {
                parent.set_queue_callback(queue, Some(callback.clone()));
                parent.set_queue_size(queue, 16)?;
                // SAFETY: nobody serves these queues.
                unsafe { parent.set_queue_address(queue, address(queue)) }?;
                parent.set_queue_ready(queue, true).await?;
            }
            parent.set_config_callback(Some(callback));
            parent.set_status(RUNNING).await
        })
    }

    fn called(&self) -> u32 {
        self.calls.swap(0, Ordering::Relaxed)
    }
}

fn address(queue: u16) -> QueueAddress {
    let base = 0x12_3456_0000 + (u64::from(queue) << 36);
    QueueAddress {
        descriptor: DmaAddr(base),
        driver: DmaAddr(base + 0x100),
        device: DmaAddr(base + 0x200),
    }
}

#[test]
fn a_queue_has_its_size_and_places_when_it_is_made_ready() {
    let bench = Bench::new(Plan::default());
    bench.start(0).unwrap();
    let state = bench.device.state.lock();
    for (queue, index) in state.queues.iter().zip(0..) {
        assert_eq!((queue.size, queue.ready), (16, true));
        assert_eq!(queue.address(), address(index));
    }
    assert_eq!(state.driver_features, feature(virtio::F::VERSION_1));
    drop(state);
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn features_of_the_upper_half_are_accepted_where_they_are_offered() {
    let features = feature(virtio::F::VERSION_1) | 1 << 64 | 1 << 127;
    let bench = Bench::new(Plan {
        features,
        ..Plan::default()
    });
    for accepted in [features, feature(virtio::F::VERSION_1), features] {
        assert_eq!(bench.parent.device_features().bits(), features);
        bench.start(accepted).unwrap();
        assert_eq!(bench.device.state.lock().driver_features, accepted);
    }
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

/// Of QEMU's devices every word but the first is the second.
#[test]
fn a_selector_that_is_not_decoded_makes_no_features() {
    let features = feature(virtio::F::VERSION_1) | 1;
    let bench = Bench::new(Plan {
        features,
        decodes: Decodes::Zero,
        ..Plan::default()
    });
    assert_eq!(bench.parent.device_features().bits(), features);
    bench.start(features).unwrap();
    assert_eq!(bench.device.state.lock().driver_features, features);
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn interrupts_are_acknowledged_and_told_by_their_reason() {
    let bench = Bench::new(Plan::default());
    bench.start(0).unwrap();
    for (reason, calls) in [(1, 2), (2, 1), (3, 3), (0, 0), (4, 0)] {
        bench.device.interrupt(reason, &bench.platform);
        assert_eq!(bench.called(), calls, "{reason}");
        assert_eq!(bench.device.state.lock().isr, 0);
    }
    let counted = bench.parent.queue_statistics(1).unwrap();
    assert_eq!(counted, [("shared_interrupts", 2)]);
    bench.platform.block_on(bench.parent.reset()).unwrap();
    bench.device.interrupt(3, &bench.platform);
    assert_eq!((bench.called(), bench.platform.vectors_in_use()), (0, 0));
}

#[test]
fn without_a_line_the_status_is_looked_at() {
    let bench = Bench::new(Plan::default());
    bench.platform.limit_vectors(0);
    bench.start(0).unwrap();
    bench.device.state.lock().isr = 1;
    bench
        .platform
        .block_on(bench.platform.sleep(core::time::Duration::from_millis(5)));
    assert_eq!(bench.called(), 2);
    bench.platform.block_on(bench.parent.reset()).unwrap();
    bench
        .platform
        .block_on(bench.platform.sleep(core::time::Duration::from_millis(5)));
    assert_eq!(bench.platform.tasks(), Vec::<String>::new());
}

#[test]
fn a_line_that_never_falls_silent_does_not_hold_the_processor() {
    let bench = Bench::new(Plan::default());
    bench.start(0).unwrap();
    bench.device.state.lock().gone = true;
    bench.device.interrupt(1, &bench.platform);
    assert_eq!(bench.called(), 3, "all are woken, to find out");
    assert_eq!(bench.parent.status(), Err(OpError::Gone));
    assert_eq!(bench.parent.queue_ready(0), Err(OpError::Gone));
}

#[test]
fn a_queue_is_stopped_by_a_reset_that_the_device_has() {
    let reset = feature(virtio::F::RING_RESET);
    let offered = reset | feature(virtio::F::VERSION_1);
    for (features, has_queue_reset, wanted) in [
        (reset, true, Ok(())),
        // As QEMU's devices, which offer it and go on.
        (reset, false, Err(OpError::Unsupported)),
        (0, true, Err(OpError::Unsupported)),
    ] {
        let bench = Bench::new(Plan {
            features: offered,
            has_queue_reset,
            ..Plan::default()
        });
        bench.start(features).unwrap();
        let stopped = bench
            .platform
            .block_on(bench.parent.set_queue_ready(1, false));
        assert_eq!(stopped, wanted);
        assert_eq!(bench.parent.queue_ready(1), Ok(wanted.is_err()));
        if wanted.is_ok() {
            bench
                .platform
                .block_on(bench.parent.set_queue_ready(1, true))
                .unwrap();
            assert_eq!(bench.device.state.lock().queues[1].address(), address(1));
        }
        assert_eq!(bench.device.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_device_that_cannot_be_reset_serves_its_first_owner() {
    for reset in [Reset::BeforeDriverOk, Reset::Never] {
        let bench = Bench::new(Plan {
            reset,
            ..Plan::default()
        });
        bench.start(0).unwrap();
        assert_eq!(bench.parent.status(), Ok(RUNNING));
        let again = bench.platform.block_on(bench.parent.reset());
        assert_eq!(again, Err(OpError::Timeout), "it may still use memory");
        assert_eq!(bench.platform.vectors_in_use(), 0);
        assert_eq!(
            bench.platform.block_on(bench.parent.reset()),
            Err(OpError::Timeout)
        );
        assert_eq!(bench.device.violations(), Vec::<String>::new());
    }
}

#[test]
fn the_status_of_a_device_that_cannot_be_reset_looks_fresh() {
    let bench = Bench::new(Plan {
        reset: Reset::Never,
        ..Plan::default()
    });
    assert_eq!(bench.parent.status(), Ok(DeviceStatus::empty()));
    let set = bench.parent.set_status(DeviceStatus::ACKNOWLEDGE);
    bench.platform.block_on(set).unwrap();
    assert_eq!(bench.parent.status(), Ok(DeviceStatus::ACKNOWLEDGE));
}

#[test]
fn configuration_is_read_whole_or_not_at_all() {
    let bench = Bench::new(Plan::default());
    let mut bytes = [0; 6];
    bench.device.state.lock().unsettled = 3;
    bench.parent.read_config(4, &mut bytes).unwrap();
    assert_eq!(bytes, [4, 5, 6, 7, 8, 9]);
    bench.device.state.lock().unsettled = 100;
    assert_eq!(
        bench.parent.read_config(4, &mut bytes),
        Err(OpError::Timeout)
    );
    bench.device.state.lock().unsettled = 0;
    for (offset, len) in [(0xfb, 6), (0x100, 1), (u32::MAX, 1), (u32::MAX, 6)] {
        let read = bench.parent.read_config(offset, &mut bytes[..len]);
        assert_eq!(read, Err(OpError::OutOfRange), "{offset:#x}");
        let written = bench.parent.write_config(offset, &bytes[..len]);
        assert_eq!(written, Err(OpError::OutOfRange), "{offset:#x}");
    }
    for bytes in [&[9_u8; 1][..], &[9; 2], &[9; 4], &[9; 8], &[9; 3]] {
        bench.parent.write_config(8, bytes).unwrap();
        assert_eq!(bench.device.state.lock().config[8..8 + bytes.len()], *bytes);
    }
    assert_eq!(bench.device.violations(), Vec::<String>::new());
}

#[test]
fn notifications_are_32_bits_wide() {
    let data = feature(virtio::F::NOTIFICATION_DATA);
    let plan = Plan {
        features: data | feature(virtio::F::VERSION_1),
        ..Plan::default()
    };
    for (features, wanted) in [
        (0, NotifyFormat::WideIndex),
        (data, NotifyFormat::IndexAndPlace),
    ] {
        let bench = Bench::new(plan.clone());
        bench.start(features).unwrap();
        bench.parent.doorbell(1).unwrap().ring(7);
        assert_eq!(bench.device.state.lock().formats, [wanted]);
        assert_eq!(bench.device.kicks[1].count(), 1);
    }
}
