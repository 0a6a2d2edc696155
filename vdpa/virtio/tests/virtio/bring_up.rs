//! What a driver and a device agree on, and what goes through their queues.

use vdpa::Features;
use vdpa::ops::OpError;
use vdpa::testing::HeapDma;
use virtio::DeviceStatus;
use virtq::{DmaBuffer, Writable};

use crate::world::{NET, World};

fn ring_features() -> [Features; 4] {
    let (event, indirect) = (virtio::F::EVENT_IDX.into(), virtio::F::INDIRECT_DESC.into());
    [Features::EMPTY, event, indirect, event | indirect]
}

#[test]
fn a_chain_goes_to_the_device_and_back_whatever_the_ring_can_do() {
    for features in ring_features() {
        let w = World::with_device(HeapDma::new(), NET, features);
        w.platform.block_on(async {
            w.bring_up().await;
            let mut setup = w.take();
            let buffer = DmaBuffer::new(&setup.device.dma(), 64).unwrap();
            setup.first.ring.add(Writable(buffer)).unwrap();
            setup.first.kick();
            assert!(
                w.parent.kick(0).take(),
                "{features}: the device is notified"
            );
            let request = w.parent.pop(0).unwrap();
            w.parent.complete(0, &request, b"hello");
            setup.first.event.wait().await;
            let used = setup.first.ring.take().unwrap().unwrap();
            assert_eq!((used.written, &used.chain.0[..5]), (5, &b"hello"[..]));
            setup.device.reset().await.unwrap();
        });
    }
}

#[test]
fn a_polled_queue_asks_for_no_interrupt() {
    for features in ring_features() {
        let w = World::with_device(HeapDma::new(), NET, features);
        w.platform.block_on(async {
            w.bring_up().await;
            let mut setup = w.take();
            let buffer = DmaBuffer::new(&setup.device.dma(), 64).unwrap();
            setup.second.ring.add(Writable(buffer)).unwrap();
            setup.second.kick();
            let request = w.parent.pop(1).unwrap();
            let wanted = w.parent.with_ring(1, |ring| {
                ring.complete(u32::from(request.head), 0);
                ring.wants_interrupt()
            });
            assert_eq!(wanted, Some(false), "{features}");
            w.parent.interrupt(1);
            assert!(!setup.second.event.take(), "nobody listens");
            assert!(setup.second.ring.take().unwrap().is_some());
            setup.device.reset().await.unwrap();
        });
    }
}

#[test]
fn what_is_agreed_is_what_both_sides_know() {
    let unknown = virtio::F::ADMIN_VQ | virtio::F::SR_IOV | virtio::F::RING_RESET;
    let known = virtio::F::ACCESS_PLATFORM | virtio::F::ORDER_PLATFORM | virtio::F::EVENT_IDX;
    let device = virtio::net::F::MAC | virtio::net::F::MTU;
    let offered = Features::from(unknown) | known.into() | device.into();
    let w = World::with_device(HeapDma::new(), NET, offered);
    w.platform.block_on(async {
        w.bring_up().await;
        let agreed = Features::from(known | virtio::F::VERSION_1) | virtio::net::F::MAC.into();
        assert_eq!(w.parent.accepted(), agreed);
    });
}

#[test]
fn a_device_that_lacks_a_required_feature_is_told_and_left_at_rest() {
    let w = World::new();
    *w.driver.required.lock().unwrap() = virtio::net::F::MRG_RXBUF.into();
    w.platform.block_on(async {
        w.bring_up().await;
        assert!(!w.is_bound());
        let failed = format!("set_status({:#x})", 1 | 2 | DeviceStatus::FAILED.bits());
        let log = w.parent.take_log();
        let told = log.iter().position(|entry| *entry == failed).unwrap();
        assert!(log[told..].contains(&String::from("reset")));
        assert!(w.parent.status().is_empty());
    });
}

#[test]
fn queues_have_the_largest_power_of_two_that_both_sides_take() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        let setup = w.take();
        assert_eq!(
            (setup.first.ring.size(), setup.second.ring.size()),
            (64, 32)
        );
        setup.device.reset().await.unwrap();
    });
}

#[test]
fn a_queue_is_created_once_between_negotiation_and_start() {
    use virtio_bus::Completion::Polled;
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        let setup = w.take();
        let device = &setup.device;
        let late = device.create_queue::<Writable>(0, "late", 8, Polled).await;
        assert_eq!(late.unwrap_err(), OpError::WrongState);
        assert!(
            !w.parent.is_ready(0) && !w.parent.is_ready(1),
            "a failure takes all down"
        );

        device
            .negotiate(Features::EMPTY, Features::EMPTY)
            .await
            .unwrap();
        let first = device
            .create_queue::<Writable>(0, "a", 8, Polled)
            .await
            .unwrap();
        assert_eq!(first.index, 0);
        let twice = device.create_queue::<Writable>(0, "b", 8, Polled).await;
        assert_eq!(twice.unwrap_err(), OpError::WrongState);

        device
            .negotiate(Features::EMPTY, Features::EMPTY)
            .await
            .unwrap();
        let absent = device.create_queue::<Writable>(2, "c", 8, Polled).await;
        assert_eq!(absent.unwrap_err(), OpError::OutOfRange);
        assert_eq!(
            device.start().await,
            Err(OpError::WrongState),
            "it has been reset"
        );
        device.reset().await.unwrap();
    });
}

#[test]
fn a_change_of_the_configuration_reaches_the_driver() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        let setup = w.take();
        w.parent.change_config(0, &[1, 2]);
        setup.device.config_event().wait().await;
        let mut bytes = [0; 3];
        setup.device.read_config(0, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 7]);
        setup.device.write_config(2, &[3]).unwrap();
        setup.device.read_config(2, &mut bytes[..1]).unwrap();
        assert_eq!(bytes[0], 3);
        assert_eq!(
            (setup.device.config_size(), setup.device.queue_count()),
            (8, 2)
        );
        setup.device.reset().await.unwrap();
    });
}

#[test]
fn a_report_names_features_and_counts_what_went_through_the_queues() {
    let w = World::new();
    w.platform.block_on(async {
        w.bring_up().await;
        let mut setup = w.take();
        let buffer = DmaBuffer::new(&setup.device.dma(), 64).unwrap();
        setup.first.ring.add(Writable(buffer)).unwrap();
        setup.first.kick();
        w.parent.interrupt(0);
        let report = setup.device.node().report().unwrap();
        assert_eq!(
            report.features,
            ["MAC", "INDIRECT_DESC", "EVENT_IDX", "VERSION_1"]
        );
        assert!(
            report.facts.contains(&("type", "network".into())),
            "{report:?}"
        );
        assert!(
            report.facts.contains(&("condition", "working".into())),
            "{report:?}"
        );
        let status = "ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK";
        assert!(
            report.facts.contains(&("status", status.into())),
            "{report:?}"
        );
        let names: Vec<_> = report
            .queues
            .iter()
            .map(|queue| (queue.index, queue.name))
            .collect();
        assert_eq!(names, [(0, "first"), (1, "second")]);
        let first = &report.queues[0];
        assert_eq!((first.size, first.interrupts), (64, 1));
        assert_eq!((first.counters.added, first.counters.kicks), (1, 1));
        setup.device.reset().await.unwrap();
    });
}
