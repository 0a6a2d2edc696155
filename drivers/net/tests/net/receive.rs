//! Frames from the device to the stack.

use virtio::net::F;

use crate::common::with_alarm;
use crate::fixture::{HEADER_LEN, Net, PLAIN, RX, Setup, frame};

#[test]
fn frames_arrive_whole_and_in_order() {
    let mut net = Setup::default().start();
    for (seed, len) in [(1, 14), (2, 60), (3, 1514)] {
        net.deliver(PLAIN, &frame(seed, len));
    }
    assert_eq!(net.receive(), Some(frame(1, 14)));
    assert_eq!(net.receive(), Some(frame(2, 60)));
    assert_eq!(net.receive(), Some(frame(3, 1514)));
    assert_eq!(net.receive(), None);
    assert!(net.reports("rx packets: 3"));
    assert!(net.reports("rx bytes: 1588"));
}

#[test]
fn the_stack_is_woken_by_a_frame_and_not_before() {
    let mut net = Setup::default().start();
    assert_eq!(net.receive(), None);
    assert_eq!(net.alarm.count(), 0);
    net.deliver(PLAIN, &frame(1, 60));
    assert_eq!(net.alarm.count(), 1);
    assert_eq!(net.receive(), Some(frame(1, 60)));
}

#[test]
fn a_stack_that_is_awake_is_not_interrupted() {
    for features in [F::empty(), F::EVENT_IDX] {
        let mut net = Setup::with(features).start();
        let interrupts = |net: &Net| {
            net.world.device().node().report().unwrap().queues[usize::from(RX)].interrupts
        };
        assert_eq!(net.receive(), None);
        net.deliver(PLAIN, &frame(0, 60));
        assert_eq!(interrupts(&net), 1);
        for seed in 1..10 {
            assert!(net.receive().is_some());
            net.deliver(PLAIN, &frame(seed, 60));
        }
        assert_eq!(interrupts(&net), 1, "{features:?}");
        assert!(net.receive().is_some());
        assert_eq!(net.receive(), None);
        net.deliver(PLAIN, &frame(10, 60));
        assert_eq!(interrupts(&net), 2, "{features:?}");
    }
}

#[test]
fn every_buffer_goes_round_many_times() {
    let mut net = Setup::with(F::MRG_RXBUF).start();
    for seed in 0..100 {
        net.deliver(PLAIN, &frame(seed, 100));
        assert_eq!(net.receive(), Some(frame(seed, 100)));
        assert_eq!(net.receive(), None);
    }
}

#[test]
fn buffers_are_given_back_with_one_notification_for_a_burst() {
    let mut net = Setup::default().start();
    let kicks = net.world.parent.kick(RX);
    let before = kicks.count();
    for seed in 0..6 {
        net.deliver(PLAIN, &frame(seed, 100));
    }
    for seed in 0..6 {
        assert_eq!(net.receive(), Some(frame(seed, 100)));
    }
    assert_eq!(kicks.count(), before);
    assert_eq!(net.receive(), None);
    assert_eq!(kicks.count(), before + 1);
    let lent = std::iter::from_fn(|| net.world.parent.pop(RX)).count();
    assert_eq!(lent, 16, "all buffers are with the device again");
}

#[test]
fn a_token_that_is_dropped_does_not_lose_the_frame() {
    let mut net = Setup::default().start();
    net.deliver(PLAIN, &frame(1, 60));
    with_alarm(&net.alarm, |cx| {
        assert!(embassy_net_driver::Driver::receive(&mut net.interface, cx).is_some());
    });
    assert_eq!(net.receive(), Some(frame(1, 60)));
    assert_eq!(net.receive(), None);
}

#[test]
fn a_frame_across_three_buffers_is_put_together() {
    let setup = Setup {
        mtu: 4000,
        ..Setup::with(F::MRG_RXBUF)
    };
    let mut net = setup.start();
    let whole = frame(7, 3500);
    deliver_across(&net, &[&whole[..1524], &whole[1524..3060], &whole[3060..]]);
    net.deliver(PLAIN, &frame(8, 60));
    assert_eq!(net.receive(), Some(whole));
    assert_eq!(net.receive(), Some(frame(8, 60)));
    assert_eq!(net.receive(), None);
    assert_eq!(std::iter::from_fn(|| net.world.parent.pop(RX)).count(), 16);
}

#[test]
fn a_merged_frame_above_the_mtu_is_dropped_and_counted() {
    let mut net = Setup::with(F::MRG_RXBUF).start();
    let whole = frame(7, 1524 + 1536 + 10);
    deliver_across(&net, &[&whole[..1524], &whole[1524..3060], &whole[3060..]]);
    net.deliver(PLAIN, &frame(8, 60));
    assert_eq!(net.receive(), Some(frame(8, 60)));
    assert!(net.reports("rx dropped: 1 (too long)"));
}

#[test]
fn without_merging_one_buffer_holds_the_largest_frame() {
    for mtu in [68, 1500, 9000, u16::MAX] {
        let net = Setup {
            mtu,
            queue_size: 256,
            ..Setup::default()
        }
        .start();
        let request = net.world.parent.pop(RX).unwrap();
        let room: u32 = request.writable.iter().map(|segment| segment.len).sum();
        assert!(
            room as usize >= HEADER_LEN + 14 + usize::from(mtu),
            "mtu {mtu}: {room}"
        );
    }
}

#[test]
fn a_small_queue_still_takes_the_largest_merged_frame() {
    for queue_size in [2, 4, 16, 256] {
        let net = Setup {
            mtu: u16::MAX,
            queue_size,
            ..Setup::with(F::MRG_RXBUF)
        }
        .start();
        let lent = std::iter::from_fn(|| net.world.parent.pop(RX));
        let room: u32 = lent.map(|request| request.writable[0].len).sum();
        assert!(
            room as usize >= HEADER_LEN + 14 + 65_535,
            "{room} bytes in {queue_size}"
        );
    }
}

/// Sends one frame in pieces that each fill a buffer, but for the last.
pub(crate) fn deliver_across(net: &Net, pieces: &[&[u8]]) {
    let count = u8::try_from(pieces.len()).unwrap();
    let mut header = PLAIN;
    header[10] = count;
    for (index, piece) in pieces.iter().enumerate() {
        let request = net
            .world
            .parent
            .pop(RX)
            .expect("the driver has lent a buffer");
        let bytes = if index == 0 {
            [&header[..], piece].concat()
        } else {
            piece.to_vec()
        };
        net.world.parent.complete(RX, &request, &bytes);
    }
}
