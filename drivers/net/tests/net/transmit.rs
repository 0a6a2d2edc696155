//! Frames from the stack to the device.

use virtio::net::F;

use crate::common::with_alarm;
use crate::fixture::{HEADER_LEN, Net, Setup, TX, frame};

#[test]
fn frames_leave_whole_in_order_and_behind_an_empty_header() {
    let mut net = Setup::default().start();
    for (seed, len) in [(1, 14), (2, 61), (3, 1514)] {
        assert!(net.send(&frame(seed, len)));
    }
    assert!(net.link_is_up());
    for (seed, len) in [(1, 14), (2, 61), (3, 1514)] {
        assert_eq!(net.sent(), Some(([0; HEADER_LEN], frame(seed, len))));
    }
    assert_eq!(net.sent(), None);
    assert!(net.reports("tx packets: 3"));
    assert!(net.reports("tx bytes: 1589"));
}

#[test]
fn the_frames_of_one_poll_take_one_notification() {
    let mut net = Setup::default().start();
    let kicks = net.world.parent.kick(TX);
    for seed in 0..5 {
        assert!(net.send(&frame(seed, 60)));
    }
    assert_eq!((kicks.count(), net.sent()), (0, None));
    net.link_is_up();
    assert_eq!(kicks.count(), 1);
    assert_eq!(net.sent(), Some(([0; HEADER_LEN], frame(0, 60))));
}

#[test]
fn a_reply_leaves_when_nothing_is_left_to_receive() {
    let mut net = Setup::default().start();
    net.deliver(crate::fixture::PLAIN, &frame(1, 60));
    with_alarm(&net.alarm, |cx| {
        use embassy_net_driver::{Driver, RxToken, TxToken};
        let (rx, tx) = net.interface.receive(cx).unwrap();
        let echoed = RxToken::consume(rx, |frame| frame.to_vec());
        TxToken::consume(tx, 60, |buffer| buffer.copy_from_slice(&echoed));
    });
    assert_eq!(net.receive(), None);
    assert_eq!(net.sent(), Some(([0; HEADER_LEN], frame(1, 60))));
}

#[test]
fn a_long_burst_is_not_kept_waiting_for_its_end() {
    let setup = Setup {
        queue_size: 64,
        ..Setup::default()
    };
    let mut net = setup.start();
    for seed in 0..40 {
        assert!(net.send(&frame(seed, 60)));
    }
    assert_eq!(net.world.parent.kick(TX).count(), 1);
    assert!(net.sent().is_some());
}

#[test]
fn sent_buffers_come_back_without_interrupts_until_the_pool_is_empty() {
    for features in [F::empty(), F::EVENT_IDX] {
        let mut net = Setup::with(features).start();
        for round in 0..10 {
            for seed in 0..8 {
                assert!(net.send(&frame(seed, 60)));
            }
            net.link_is_up();
            while net.sent().is_some() {}
            assert_eq!(interrupts(&net), 0, "round {round}, {features:?}");
        }

        fill(&mut net);
        assert_eq!((interrupts(&net), net.alarm.count()), (0, 0));
        assert!(net.sent().is_some());
        assert_eq!(
            (interrupts(&net), net.alarm.count()),
            (1, 1),
            "{features:?}"
        );

        assert!(net.send(&frame(0, 60)));
        net.link_is_up();
        while net.sent().is_some() {}
        assert_eq!(interrupts(&net), 1, "nobody waits any more: {features:?}");
    }
}

/// How often the transmit queue has interrupted.
fn interrupts(net: &Net) -> u64 {
    net.world.device().node().report().unwrap().queues[usize::from(TX)].interrupts
}

#[test]
fn without_room_to_answer_nothing_is_received_and_nothing_is_lost() {
    let mut net = Setup::default().start();
    fill(&mut net);
    net.deliver(crate::fixture::PLAIN, &frame(9, 60));
    assert_eq!(net.receive(), None);
    assert!(net.sent().is_some());
    assert_eq!(net.receive(), Some(frame(9, 60)));
}

#[test]
fn a_frame_above_the_mtu_is_swallowed_and_counted() {
    let mut net = Setup::default().start();
    assert!(net.send(&frame(1, 1515)));
    net.link_is_up();
    assert_eq!(net.sent(), None);
    assert!(net.reports("tx dropped: 1 (too long)"));
}

/// Sends until there is no room.
fn fill(net: &mut Net) {
    for seed in 0..16 {
        assert!(net.send(&frame(seed, 60)));
    }
    assert!(!net.send(&frame(16, 60)));
}
