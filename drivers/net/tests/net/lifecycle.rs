//! From probe to removal: what is read, refused, published and freed.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use embassy_net_driver::{Driver, HardwareAddress, RxToken};
use vdpa::Platform;
use vdpa::device::{Removal, Removed};
use vdpa::ops::OpError;
use vdpa::testing::{FakePlatform, HeapDma, Resets};
use virtio::net::F;
use virtio_bus::Completion;
use virtio_bus::Registry;
use virtio_net::NetDevice;

use crate::common::{Alarm, with_alarm};
use crate::fixture::{MAC, Net, PLAIN, RX, Setup, TX, frame};

#[test]
fn an_interface_is_published_and_in_the_tree() {
    let registry = Registry::new();
    let world = Setup::default().world(&registry);
    assert_eq!(registry.names(), ["net0"]);
    assert_eq!(world.driver().as_deref(), Some("virtio_net"));
    assert_eq!(
        world.find("net0").unwrap().path(),
        "vdpa0 -> virtio0 -> net0"
    );
    let facts = world.facts("net0");
    assert_eq!(
        facts[..3],
        ["mac: 52:54:00:12:34:56", "mtu: 1500", "link: up"]
    );
    let interface = registry.take().unwrap();
    assert_eq!(
        (interface.name(), interface.mtu(), interface.mac().0),
        ("net0", 1500, MAC)
    );
    assert_eq!(Driver::capabilities(&interface).max_transmission_unit, 1514);
    assert!(matches!(
        interface.hardware_address(),
        HardwareAddress::Ethernet(MAC)
    ));
}

#[test]
fn only_known_features_are_negotiated() {
    let setup = Setup::with(F::CSUM | F::MRG_RXBUF | F::HOST_TSO4 | F::GUEST_TSO4 | F::CTRL_VQ);
    let net = setup.start();
    let expected = F::MAC | F::STATUS | F::MTU | F::CSUM | F::MRG_RXBUF | F::VERSION_1;
    assert_eq!(net.world.parent.accepted(), expected.into());
}

#[test]
fn without_an_address_a_local_one_is_derived() {
    let without = Setup {
        features: F::STATUS,
        ..Setup::default()
    };
    let broadcast = Setup {
        mac: [0xff; 6],
        ..Setup::default()
    };
    for setup in [without, broadcast] {
        let mac = setup.start().interface.mac();
        assert_eq!(mac.0[0], 2, "locally administered, not a group");
        assert_eq!(mac, setup.start().interface.mac(), "the same each time");
    }
}

#[test]
fn the_mtu_is_the_devices_and_not_below_68() {
    let mtu = |mtu| Setup {
        mtu,
        ..Setup::default()
    };
    assert_eq!(mtu(68).start().interface.mtu(), 68);
    let jumbo = mtu(u16::MAX).start().interface;
    assert_eq!(jumbo.mtu(), 65_535);
    assert_eq!(
        Driver::capabilities(&jumbo).max_transmission_unit,
        9216 + 14
    );

    // Linux does not believe less, and goes on without it.
    for none in [0, 1, 67] {
        assert_eq!(mtu(none).start().interface.mtu(), 1500);
    }

    let ignored = Setup {
        features: F::MAC | F::STATUS,
        ..mtu(67)
    };
    assert_eq!(ignored.start().interface.mtu(), 1500);
}

#[test]
fn the_link_follows_the_device_and_wakes_the_stack() {
    let mut net = Setup::default().start();
    assert!(net.link_is_up());
    assert_eq!(net.alarm.count(), 0);
    for (status, up) in [(0, false), (1, true), (0, false)] {
        let before = net.alarm.count();
        net.world.parent.change_config(6, &[status, 0]);
        net.world.platform.run_until_stalled();
        assert_eq!(net.alarm.count(), before + 1);
        assert_eq!(net.link_is_up(), up);
    }
    assert!(net.reports("link: down"));
}

#[test]
fn a_link_without_status_is_always_up() {
    let mut net = Setup {
        features: F::MAC,
        ..Setup::default()
    }
    .start();
    net.world.parent.change_config(6, &[0, 0]);
    net.world.platform.run_until_stalled();
    assert!(net.link_is_up());
}

#[test]
fn polled_interfaces_need_no_interrupts() {
    let setup = Setup {
        completion: Completion::Polled,
        ..Setup::default()
    };
    let mut net = setup.start();
    assert_eq!(net.receive(), None);
    assert!(net.alarm.count() > 0, "the stack polls again by itself");
    for seed in 0..40 {
        net.deliver(PLAIN, &frame(seed, 60));
        assert_eq!(net.receive(), Some(frame(seed, 60)));
        assert!(net.send(&frame(seed, 60)));
        net.link_is_up();
        assert!(net.sent().is_some());
    }
    while net.send(&frame(0, 60)) {}
    net.sent();
    assert!(net.send(&frame(1, 60)));
    let report = net.world.device().node().report().unwrap();
    assert!(report.queues.iter().all(|queue| queue.interrupts == 0));
}

fn assert_ended(net: &mut Net) {
    assert_eq!(net.receive(), None);
    assert!(!net.link_is_up());
    assert!(net.send(&frame(1, 60)), "the stack's timers must go on");
}

#[test]
fn removal_ends_the_traffic_and_frees_everything_though_the_stack_keeps_the_interface() {
    for removal in [Removal::Orderly, crate::common::surprise()] {
        let mut net = Setup::with(F::MRG_RXBUF).start();
        assert_eq!(net.receive(), None);
        assert!(net.link_is_up());
        assert!(net.send(&frame(1, 60)));
        let before = net.alarm.count();
        assert_eq!(net.world.remove(removal), Removed::Clean);
        assert!(
            net.alarm.count() > before,
            "the stack learns of it: {removal:?}"
        );
        assert_ended(&mut net);
        assert_eq!(net.world.memory(), 0, "{removal:?}");
        assert!(net.world.find("net0").is_none());
    }
}

#[test]
fn an_interface_that_nobody_took_is_withdrawn() {
    let registry = Registry::new();
    let world = Setup::default().world(&registry);
    world.remove(Removal::Orderly);
    assert_eq!(registry.names(), [""; 0]);
    assert_eq!(world.memory(), 0);
}

#[test]
fn a_driver_that_leaves_frees_everything_and_its_successor_starts_afresh() {
    let setup = Setup::default();
    let mut net = setup.start();
    net.deliver(PLAIN, &frame(1, 60));
    net.world.remove_driver("virtio_net");
    assert_ended(&mut net);
    assert_eq!(net.world.memory(), 0);

    net.world.add_driver(Arc::new(setup.driver(&net.registry)));
    net.interface = net.registry.take().unwrap();
    assert_eq!(
        net.interface.name(),
        "net1",
        "no two interfaces that somebody holds share a name"
    );
    net.deliver(PLAIN, &frame(2, 60));
    assert_eq!(net.receive(), Some(frame(2, 60)));
}

#[test]
fn a_broken_interface_frees_its_memory_at_removal() {
    let mut net = Setup::default().start();
    net.world.parent.with_ring(RX, |ring| ring.complete(99, 0));
    assert_ended(&mut net);
    assert!(net.world.memory() > 0, "the device may still write");
    let before = net.alarm.count();
    net.world.remove(Removal::Orderly);
    assert!(
        net.alarm.count() > before,
        "the stack learns that memory can be freed"
    );
    assert_ended(&mut net);
    assert_eq!(net.world.memory(), 0);
}

#[test]
fn memory_that_an_unreset_device_may_write_is_never_freed() {
    let mut net = Setup::default().start();
    net.world.parent.set_resets(Resets::Never);
    let before = net.world.memory();
    assert_eq!(
        net.world.remove(Removal::Orderly),
        Removed::Leaked { queues: 2 }
    );
    assert_ended(&mut net);
    drop(net.interface);
    assert!(net.world.memory() > 0);
    assert!(net.world.memory() <= before);
}

#[test]
fn a_sleeping_stack_lets_go_of_the_device_at_last() {
    let Net {
        mut interface,
        world,
        ..
    } = Setup::default().start();
    let device = Arc::downgrade(&world.device());
    let polls = poll_fn(move |cx| {
        while let Some((rx, _)) = Driver::receive(&mut interface, cx) {
            RxToken::consume(rx, |_| ());
        }
        interface.link_state(cx);
        Poll::<()>::Pending
    });
    world.platform.spawn("stack", Box::pin(polls));
    world.platform.run_until_stalled();
    // The reset takes a while, in which the stack is polled and goes to sleep again.
    world.parent.set_resets(Resets::Never);
    world.remove(Removal::Orderly);
    world.platform.run_until_stalled();
    assert_eq!(world.platform.tasks(), ["stack"]);
    assert!(device.upgrade().is_none());
}

#[test]
fn a_device_that_is_being_reset_gets_no_traffic() {
    let mut net = Setup::default().start();
    let kicks = net.world.parent.kick(TX);
    net.world.begin_to_remove_driver("virtio_net");
    net.deliver(PLAIN, &frame(1, 60));
    assert_ended(&mut net);
    assert_eq!(kicks.count(), 0);
}

#[test]
fn a_probe_that_fails_at_any_step_leaves_nothing_behind() {
    let setup = Setup::default();
    for step in 0.. {
        let registry: Arc<Registry<NetDevice>> = Registry::new();
        let world = setup.world_on(FakePlatform::new(), &registry, |parent| {
            parent.fail_after(step, OpError::Timeout);
        });
        if world.parent.take_fault() {
            assert!(step > 15, "the driver's steps were all reached");
            return;
        }
        if registry.names().is_empty() {
            assert_eq!(world.memory(), 0, "step {step}");
            assert!(world.find("net0").is_none(), "step {step}");
            assert_eq!(world.platform.tasks(), [""; 0], "step {step}");
        }
    }
}

#[test]
fn without_memory_for_buffers_the_probe_fails_cleanly() {
    let registry = Registry::new();
    let setup = Setup::default();
    let enough = setup.world(&registry).memory();
    for limit in [0, 100, enough / 2, enough - 1] {
        let registry = Registry::new();
        let world = setup.world_on(
            FakePlatform::with_heap(HeapDma::limited(limit)),
            &registry,
            |_| {},
        );
        assert_eq!(registry.names(), [""; 0], "{limit} bytes");
        assert_eq!(world.memory(), 0, "{limit} bytes");
    }
}

#[test]
fn the_latest_waiter_is_woken() {
    let mut net = Setup::default().start();
    assert_eq!(net.receive(), None);
    let later = Arc::<Alarm>::default();
    with_alarm(&later, |cx| {
        assert!(Driver::receive(&mut net.interface, cx).is_none());
    });
    net.deliver(PLAIN, &frame(1, 60));
    assert_eq!((net.alarm.count(), later.count()), (0, 1));
}
