//! The control queue: what the device is told, and what becomes of its answer.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use vdpa::Features;
use vdpa::device::{Removal, Removed};
use vdpa::ops::OpError;
use vdpa::testing::{FakeParent, FakePlatform, HeapDma, Request};
use virtio::DeviceStatus;
use virtio::net::F;
use virtio_bus::Completion;
use virtio_bus::Registry;
use virtio_net::{Control, ControlError, MacAddress, NetDevice, Switch};

use crate::common::{Hardware, World};
use crate::fixture::{MAC, Net, Setup};

const CONTROL: u16 = 2;
const OK: u8 = 0;
const ERR: u8 = 1;
const OTHER_MAC: MacAddress = MacAddress([0x02, 1, 2, 3, 4, 5]);
/// Class `MAC`, command `ADDR_SET`.
const SET_OTHER_MAC: [u8; 8] = [1, 1, 0x02, 1, 2, 3, 4, 5];
/// Class `RX`, command `PROMISC`, on.
const PROMISCUOUS_ON: [u8; 3] = [0, 0, 1];
const PROMISCUOUS_OFF: [u8; 3] = [0, 0, 0];

fn all() -> F {
    F::CTRL_VQ | F::CTRL_MAC_ADDR | F::CTRL_RX
}

fn world_on(
    setup: &Setup,
    queues: usize,
    platform: Arc<FakePlatform>,
    registry: &Arc<Registry<NetDevice>>,
    set_up: impl FnOnce(&FakeParent),
) -> World {
    let hardware = Hardware {
        device_type: virtio::Id::Net,
        features: setup.features.into(),
        queue_sizes: &[setup.queue_size; 5][..queues],
        config: &setup.config(),
    };
    World::new(
        &hardware,
        Arc::new(setup.driver(registry)),
        platform,
        set_up,
    )
}

fn start_with_queues(setup: &Setup, queues: usize) -> Net {
    let registry = Registry::new();
    let world = world_on(setup, queues, FakePlatform::new(), &registry, |_| {});
    let interface = registry.take().unwrap();
    Net {
        world,
        interface,
        registry,
        alarm: Arc::default(),
    }
}

fn start(features: F) -> (Net, Control) {
    let net = start_with_queues(&Setup::with(features), 3);
    let control = net.interface.control().unwrap();
    (net, control)
}

type Pending<'a> = Pin<Box<dyn Future<Output = Result<(), ControlError>> + 'a>>;

fn poll<C: Future + ?Sized>(future: Pin<&mut C>) -> Poll<C::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The next command that the device finds.
fn next(net: &Net) -> Option<(Request, Vec<u8>)> {
    let request = net.world.parent.pop(CONTROL)?;
    let room: u32 = request.writable.iter().map(|segment| segment.len).sum();
    assert_eq!(room, 1, "for the answer");
    let bytes = net.world.parent.read(CONTROL, &request);
    Some((request, bytes))
}

fn answer(net: &Net, request: &Request, bytes: &[u8]) {
    net.world.parent.complete(CONTROL, request, bytes);
    net.world.platform.run_until_stalled();
}

/// Runs a command that the device answers with `ack`; what it was, and how it ended.
fn carry_out(
    net: &Net,
    command: impl Future<Output = Result<(), ControlError>>,
    ack: u8,
) -> (Vec<u8>, Result<(), ControlError>) {
    let mut command = pin!(command);
    assert_eq!(poll(command.as_mut()), Poll::Pending);
    let (request, bytes) = next(net).expect("a command");
    assert_eq!(poll(command.as_mut()), Poll::Pending);
    answer(net, &request, &[ack]);
    let Poll::Ready(result) = poll(command) else {
        panic!("the command has been answered");
    };
    (bytes, result)
}

/// Ends at once, without the device.
fn refused(net: &Net, command: impl Future<Output = Result<(), ControlError>>) -> ControlError {
    let Poll::Ready(result) = poll(pin!(command)) else {
        panic!("the command waits");
    };
    assert!(next(net).is_none());
    result.unwrap_err()
}

/// Lets the driver know of a change of the configuration, and follow it.
fn follow_config(net: &mut Net) {
    net.world.platform.run_until_stalled();
    net.link_is_up();
    net.world.platform.run_until_stalled();
}

#[test]
fn commands_reach_the_device_and_the_address_follows() {
    let (net, control) = start(all());
    assert!(net.world.parent.accepted().contains(all()));
    let set = carry_out(&net, control.set_mac(OTHER_MAC), OK);
    assert_eq!(set, (SET_OTHER_MAC.to_vec(), Ok(())));
    assert_eq!(net.interface.mac(), OTHER_MAC);
    assert!(net.reports("mac: 02:01:02:03:04:05"));
    let modes = [
        (
            carry_out(&net, control.set_promiscuous(Switch::On), OK),
            [0, 0, 1],
        ),
        (
            carry_out(&net, control.set_promiscuous(Switch::Off), OK),
            [0, 0, 0],
        ),
        (
            carry_out(&net, control.set_all_multicast(Switch::On), OK),
            [0, 1, 1],
        ),
        (
            carry_out(&net, control.set_all_multicast(Switch::Off), OK),
            [0, 1, 0],
        ),
    ];
    for (seen, expected) in modes {
        assert_eq!(seen, (expected.to_vec(), Ok(())));
    }
}

#[test]
fn a_device_that_refuses_is_left_as_it_is() {
    let (mut net, control) = start(all());
    let set = carry_out(&net, control.set_mac(OTHER_MAC), ERR);
    assert_eq!(set.1, Err(ControlError::Refused));
    let set = carry_out(&net, control.set_promiscuous(Switch::On), ERR);
    assert_eq!(set.1, Err(ControlError::Refused));
    assert_eq!(net.interface.mac().0, MAC);
    net.world.parent.change_config(6, &[1, 0]);
    follow_config(&mut net);
    assert!(next(&net).is_none(), "nothing is told again");
    let set = carry_out(&net, control.set_mac(OTHER_MAC), OK);
    assert_eq!(set.1, Ok(()), "a refusal is no breach");
}

#[test]
fn devices_without_a_usable_control_queue_have_none() {
    let cases = [
        (F::CTRL_RX, 3),
        (F::CTRL_VQ, 3),
        (F::CTRL_VQ | F::CTRL_VLAN, 3),
        (all(), 2),
    ];
    for (features, queues) in cases {
        let net = start_with_queues(&Setup::with(features), queues);
        assert!(net.interface.control().is_none(), "{features:?}");
        let accepted = net.world.parent.accepted();
        assert_eq!(
            accepted.intersection(all().into()),
            Features::EMPTY,
            "{features:?}"
        );
    }
}

#[test]
fn without_multiqueue_the_control_queue_is_the_third() {
    let setup = Setup::with(all() | F::MQ);
    let net = start_with_queues(&setup, 5);
    assert!(!net.world.parent.accepted().contains(F::MQ));
    assert!(net.world.parent.is_ready(CONTROL) && !net.world.parent.is_ready(4));
    let control = net.interface.control().unwrap();
    let set = carry_out(&net, control.set_promiscuous(Switch::On), OK);
    assert_eq!(set.1, Ok(()));
}

#[test]
fn what_the_device_does_not_offer_is_not_asked_for() {
    let (net, control) = start(F::CTRL_VQ | F::CTRL_RX);
    let error = refused(&net, control.set_mac(OTHER_MAC));
    assert_eq!(error, ControlError::Unsupported);
    let set = carry_out(&net, control.set_all_multicast(Switch::On), OK);
    assert_eq!(set.1, Ok(()));

    let (net, control) = start(F::CTRL_VQ | F::CTRL_MAC_ADDR);
    for switch in [Switch::On, Switch::Off] {
        let error = refused(&net, control.set_promiscuous(switch));
        assert_eq!(error, ControlError::Unsupported);
        let error = refused(&net, control.set_all_multicast(switch));
        assert_eq!(error, ControlError::Unsupported);
    }
    for bytes in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let error = refused(&net, control.set_mac(MacAddress(bytes)));
        assert_eq!(error, ControlError::BadAddress);
    }
    let set = carry_out(&net, control.set_mac(OTHER_MAC), OK);
    assert_eq!(set.1, Ok(()));
}

#[test]
fn the_device_is_told_one_thing_after_the_other() {
    let (net, control) = start(all());
    let other = control.clone();
    let mut first: Pending<'_> = Box::pin(control.set_promiscuous(Switch::On));
    let mut second: Pending<'_> = Box::pin(other.set_promiscuous(Switch::Off));
    assert_eq!(poll(first.as_mut()), Poll::Pending);
    assert_eq!(poll(second.as_mut()), Poll::Pending);
    let (request, bytes) = next(&net).unwrap();
    assert_eq!(bytes, PROMISCUOUS_ON);
    assert!(next(&net).is_none());
    answer(&net, &request, &[OK]);
    assert_eq!(poll(first.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(poll(second.as_mut()), Poll::Pending);
    let (request, bytes) = next(&net).unwrap();
    assert_eq!(bytes, PROMISCUOUS_OFF);
    answer(&net, &request, &[ERR]);
    assert_eq!(
        poll(second.as_mut()),
        Poll::Ready(Err(ControlError::Refused))
    );
}

#[test]
fn a_command_that_nobody_waits_for_stays_with_the_device() {
    let (net, control) = start(all());
    let memory = net.world.memory();
    for _ in 0..10 {
        let mut forgotten: Pending<'_> = Box::pin(control.set_promiscuous(Switch::On));
        assert_eq!(poll(forgotten.as_mut()), Poll::Pending);
    }
    let (request, _) = next(&net).unwrap();
    let mut later: Pending<'_> = Box::pin(control.set_mac(OTHER_MAC));
    assert_eq!(poll(later.as_mut()), Poll::Pending);
    assert!(next(&net).is_none());
    answer(&net, &request, &[OK]);
    assert_eq!(poll(later.as_mut()), Poll::Pending);
    let (request, bytes) = next(&net).unwrap();
    assert_eq!(bytes, SET_OTHER_MAC);
    answer(&net, &request, &[OK]);
    assert_eq!(poll(later.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(net.world.memory(), memory);
}

#[test]
fn removal_ends_commands_and_frees_everything_though_the_application_keeps_its_handle() {
    for removal in [Removal::Orderly, crate::common::surprise()] {
        let (mut net, control) = start(all());
        let mut first: Pending<'_> = Box::pin(control.set_mac(OTHER_MAC));
        let mut second: Pending<'_> = Box::pin(control.set_promiscuous(Switch::On));
        assert_eq!(poll(first.as_mut()), Poll::Pending);
        assert_eq!(poll(second.as_mut()), Poll::Pending);
        let seen = next(&net).unwrap();
        assert_eq!(net.world.remove(removal), Removed::Clean);
        drop(seen);
        for command in [&mut first, &mut second] {
            let result = poll(command.as_mut());
            assert_eq!(result, Poll::Ready(Err(ControlError::Gone)), "{removal:?}");
        }
        drop((first, second));
        assert!(!net.link_is_up());
        assert_eq!(net.interface.mac().0, MAC);
        assert_eq!(net.world.memory(), 0, "{removal:?}");
        assert_eq!(net.world.platform.tasks(), [""; 0], "{removal:?}");
        assert!(net.interface.control().is_none());
        let late = poll(pin!(control.set_mac(OTHER_MAC)));
        assert_eq!(late, Poll::Ready(Err(ControlError::Gone)));
    }
}

#[test]
fn commands_end_at_once_though_the_device_takes_long_to_reset() {
    let (net, control) = start(all());
    let mut command: Pending<'_> = Box::pin(control.set_mac(OTHER_MAC));
    assert_eq!(poll(command.as_mut()), Poll::Pending);
    net.world.begin_to_remove_driver("virtio_net");
    assert_eq!(poll(command.as_mut()), Poll::Ready(Err(ControlError::Gone)));
}

fn assert_broken(net: &mut Net, control: &Control) {
    net.world.platform.run_until_stalled();
    assert!(net.world.parent.status().contains(DeviceStatus::FAILED));
    assert!(!net.link_is_up());
    let later = poll(pin!(control.set_promiscuous(Switch::On)));
    assert_eq!(later, Poll::Ready(Err(ControlError::Broken)));
    assert_eq!(net.world.remove(Removal::Orderly), Removed::Clean);
    assert!(!net.link_is_up());
    assert_eq!(net.world.memory(), 0);
    assert_eq!(net.world.platform.tasks(), [""; 0]);
}

#[test]
fn an_answer_that_there_is_not_breaks_the_device() {
    for bytes in [&[][..], &[2], &[0xff]] {
        let (mut net, control) = start(all());
        let mut command: Pending<'_> = Box::pin(control.set_mac(OTHER_MAC));
        assert_eq!(poll(command.as_mut()), Poll::Pending);
        let (request, _) = next(&net).unwrap();
        answer(&net, &request, bytes);
        let result = poll(command.as_mut());
        assert_eq!(result, Poll::Ready(Err(ControlError::Broken)), "{bytes:?}");
        drop(command);
        assert_eq!(net.interface.mac().0, MAC);
        assert_broken(&mut net, &control);
    }
}

#[test]
fn a_broken_ring_breaks_the_device() {
    let (mut net, control) = start(all());
    let mut command: Pending<'_> = Box::pin(control.set_mac(OTHER_MAC));
    assert_eq!(poll(command.as_mut()), Poll::Pending);
    net.world
        .parent
        .with_ring(CONTROL, |ring| ring.complete(99, 0));
    net.world.parent.interrupt(CONTROL);
    net.world.platform.run_until_stalled();
    assert_eq!(
        poll(command.as_mut()),
        Poll::Ready(Err(ControlError::Broken))
    );
    drop(command);
    assert_broken(&mut net, &control);
}

#[test]
fn a_device_that_wants_a_reset_ends_commands_under_way() {
    let (mut net, control) = start(all());
    let mut command: Pending<'_> = Box::pin(control.set_mac(OTHER_MAC));
    assert_eq!(poll(command.as_mut()), Poll::Pending);
    net.world.parent.demand_reset();
    net.world.platform.run_until_stalled();
    assert_eq!(
        poll(command.as_mut()),
        Poll::Ready(Err(ControlError::Broken))
    );
    drop(command);
    assert_broken(&mut net, &control);
}

#[test]
fn what_the_device_may_have_lost_it_is_told_again() {
    let (mut net, control) = start(all());
    carry_out(&net, control.set_mac(OTHER_MAC), OK).1.unwrap();
    carry_out(&net, control.set_promiscuous(Switch::On), OK)
        .1
        .unwrap();
    // The device shows the address, so it knows it.
    net.world.parent.change_config(0, &OTHER_MAC.0);
    follow_config(&mut net);
    let (request, bytes) = next(&net).unwrap();
    assert_eq!(bytes, PROMISCUOUS_ON);
    answer(&net, &request, &[OK]);
    assert!(next(&net).is_none());

    net.world.parent.change_config(0, &MAC);
    follow_config(&mut net);
    assert_eq!(net.interface.mac(), OTHER_MAC);
    for expected in [&SET_OTHER_MAC[..], &PROMISCUOUS_ON] {
        let (request, bytes) = next(&net).unwrap();
        assert_eq!(bytes, expected);
        answer(&net, &request, &[OK]);
    }
    assert!(next(&net).is_none());
}

#[test]
fn a_device_that_does_not_take_it_again_has_its_own_address() {
    let (mut net, control) = start(all());
    carry_out(&net, control.set_mac(OTHER_MAC), OK).1.unwrap();
    net.world.parent.change_config(0, &MAC);
    follow_config(&mut net);
    let (request, bytes) = next(&net).unwrap();
    assert_eq!(bytes, SET_OTHER_MAC);
    answer(&net, &request, &[ERR]);
    assert_eq!(net.interface.mac().0, MAC);
    net.world.parent.change_config(0, &MAC);
    follow_config(&mut net);
    assert!(next(&net).is_none(), "it is not asked again");
}

#[test]
fn what_is_told_again_is_what_was_set_last() {
    let (mut net, control) = start(all());
    carry_out(&net, control.set_promiscuous(Switch::On), OK)
        .1
        .unwrap();
    let mut off: Pending<'_> = Box::pin(control.set_promiscuous(Switch::Off));
    assert_eq!(poll(off.as_mut()), Poll::Pending);
    let (request, _) = next(&net).unwrap();
    net.world.parent.change_config(6, &[1, 0]);
    follow_config(&mut net);
    net.world.parent.complete(CONTROL, &request, &[OK]);
    // The answer is taken, and only then looked at.
    net.world.platform.run_until_stalled();
    assert_eq!(poll(off.as_mut()), Poll::Ready(Ok(())));
    net.world.platform.run_until_stalled();
    let (_, bytes) = next(&net).unwrap();
    assert_eq!(bytes, PROMISCUOUS_OFF);
}

#[test]
fn polled_interfaces_need_no_interrupts_and_no_turns_while_nothing_is_under_way() {
    let setup = Setup {
        completion: Completion::Polled,
        ..Setup::with(all())
    };
    let net = start_with_queues(&setup, 3);
    let control = net.interface.control().unwrap();
    for switch in [Switch::On, Switch::Off] {
        // That the platform stalls says that the task sleeps before and after the command.
        net.world.platform.run_until_stalled();
        let mut command: Pending<'_> = Box::pin(control.set_promiscuous(switch));
        assert_eq!(poll(command.as_mut()), Poll::Pending);
        let (request, _) = next(&net).unwrap();
        answer(&net, &request, &[OK]);
        assert_eq!(poll(command.as_mut()), Poll::Ready(Ok(())));
    }
    let mut command: Pending<'_> = Box::pin(control.set_mac(OTHER_MAC));
    assert_eq!(poll(command.as_mut()), Poll::Pending);
    let report = net.world.device().node().report().unwrap();
    assert!(report.queues.iter().all(|queue| queue.interrupts == 0));
    assert_eq!(net.world.remove(Removal::Orderly), Removed::Clean);
    assert_eq!(poll(command.as_mut()), Poll::Ready(Err(ControlError::Gone)));
    assert_eq!(net.world.platform.tasks(), [""; 0]);
}

#[test]
fn a_probe_that_fails_at_any_step_leaves_nothing_behind() {
    let setup = Setup::with(all());
    for step in 0.. {
        let registry = Registry::new();
        let world = world_on(&setup, 3, FakePlatform::new(), &registry, |parent| {
            parent.fail_after(step, OpError::Timeout);
        });
        if world.parent.take_fault() {
            assert!(step > 20, "the driver's steps were all reached");
            return;
        }
        if registry.names().is_empty() {
            assert_eq!(world.memory(), 0, "step {step}");
            assert_eq!(world.platform.tasks(), [""; 0], "step {step}");
        }
    }
}

#[test]
fn without_memory_the_probe_fails_cleanly_and_a_little_suffices() {
    let registry = Registry::new();
    let plain = Setup::default().world(&registry).memory();
    let setup = Setup::with(all());
    let enough = world_on(&setup, 3, FakePlatform::new(), &registry, |_| {}).memory();
    assert!(
        (plain + 1..plain + 8192).contains(&enough),
        "{plain} {enough}"
    );
    for limit in [plain, enough - 1] {
        let registry = Registry::new();
        let platform = FakePlatform::with_heap(HeapDma::limited(limit));
        let world = world_on(&setup, 3, platform, &registry, |_| {});
        assert_eq!(registry.names(), [""; 0], "{limit} bytes");
        assert_eq!(world.memory(), 0, "{limit} bytes");
    }
}
