//! A device that does not keep to the specification: frames are dropped and counted, broken rings
//! and headers end the interface.

use proptest::collection::vec;
use proptest::prelude::*;
use virtio::DeviceStatus;
use virtio::net::F;

use crate::fixture::{Net, PLAIN, RX, Setup, TX, frame};
use crate::receive::deliver_across;

/// The interface has given up: no traffic, link down, the stack awake, the device told.
fn assert_out_of_use(net: &mut Net) {
    assert_eq!(net.receive(), None);
    assert!(!net.link_is_up());
    assert_eq!(net.world.device().check(), Err(vdpa::ops::OpError::Broken));
    net.world.platform.run_until_stalled();
    assert!(net.world.parent.status().contains(DeviceStatus::FAILED));
    assert!(net.send(&frame(1, 60)), "the stack's timers must go on");
    assert!(net.reports("tx dropped: 1 (no device)"));
    assert!(net.reports("link: down"));
}

fn mergeable() -> Net {
    Setup {
        mtu: 4000,
        ..Setup::with(F::MRG_RXBUF)
    }
    .start()
}

/// Returns the next receive buffer with `bytes` in it, and says that `written` were written.
fn return_buffer(net: &Net, bytes: &[u8], written: u32) {
    let request = net.world.parent.pop(RX).unwrap();
    net.world.parent.with_ring(RX, |ring| {
        ring.write(&request, 0, bytes);
        ring.complete(u32::from(request.head), written);
    });
}

#[test]
fn a_packet_shorter_than_its_header_breaks_the_device() {
    for features in [F::empty(), F::MRG_RXBUF] {
        for written in [0, 1, 11] {
            let mut net = Setup::with(features).start();
            return_buffer(&net, &PLAIN, written);
            assert_out_of_use(&mut net);
        }
    }
}

#[test]
fn a_frame_shorter_than_an_ethernet_header_is_dropped() {
    let mut net = Setup::default().start();
    net.deliver(PLAIN, &[]);
    net.deliver(PLAIN, &[0; 13]);
    net.deliver(PLAIN, &frame(1, 14));
    assert_eq!(net.receive(), Some(frame(1, 14)));
    assert!(net.reports("rx dropped: 2 (too short)"));
}

#[test]
fn a_frame_longer_than_the_mtu_allows_is_dropped() {
    let mut net = Setup::default().start();
    net.deliver(PLAIN, &frame(1, 1515));
    net.deliver(PLAIN, &frame(2, 1514));
    assert_eq!(net.receive(), Some(frame(2, 1514)));
    assert!(net.reports("rx dropped: 1 (too long)"));
}

#[test]
fn a_segmented_packet_that_was_not_negotiated_is_dropped() {
    let mut net = Setup::default().start();
    let mut header = PLAIN;
    header[1] = 1;
    net.deliver(header, &frame(1, 60));
    assert_eq!(net.receive(), None);
    assert!(net.reports("rx dropped: 1 (segmentation not negotiated)"));
}

#[test]
fn a_length_beyond_the_buffer_breaks_the_device() {
    let mut net = Setup::default().start();
    return_buffer(&net, &PLAIN, 1537);
    assert_out_of_use(&mut net);
}

#[test]
fn a_frame_that_spans_no_buffer_is_dropped_and_its_buffer_is_used_again() {
    let mut net = mergeable();
    let mut header = PLAIN;
    header[10] = 0;
    // More often than there are buffers: none of them is lost.
    for _ in 0..40 {
        net.deliver(header, &frame(1, 60));
        assert_eq!(net.receive(), None);
    }
    net.deliver(header, &frame(1, 1524));
    net.deliver(PLAIN, &frame(2, 60));
    assert_eq!(net.receive(), Some(frame(2, 60)));
    assert!(net.reports("rx dropped: 41 (spans no buffer)"));
    assert_eq!(net.world.device().check(), Ok(()));
}

#[test]
fn num_buffers_above_the_ring_breaks_the_device() {
    let mut net = mergeable();
    let mut header = PLAIN;
    header[10..].copy_from_slice(&[17, 0]);
    net.deliver(header, &frame(1, 1524));
    assert_out_of_use(&mut net);
}

#[test]
fn num_buffers_above_those_used_breaks_the_device() {
    let mut net = mergeable();
    let mut header = PLAIN;
    header[10] = 3;
    net.deliver(header, &frame(1, 1524));
    net.world.parent.pop(RX).unwrap();
    assert_out_of_use(&mut net);
}

#[test]
fn a_gap_before_the_last_buffer_breaks_the_device() {
    let mut net = mergeable();
    let whole = frame(7, 3000);
    deliver_across(
        &net,
        &[&whole[..100], &whole[100..]].map(|piece| &piece[..100]),
    );
    assert_out_of_use(&mut net);

    let mut net = mergeable();
    deliver_across(
        &net,
        &[&whole[..1524], &whole[1524..1600], &whole[1600..1700]],
    );
    assert_out_of_use(&mut net);

    let mut net = mergeable();
    deliver_across(&net, &[&whole[..1524], &[]]);
    assert_out_of_use(&mut net);
}

#[test]
fn without_merging_num_buffers_means_nothing() {
    let mut net = Setup::default().start();
    let mut header = PLAIN;
    for count in [0, 2, 0xff] {
        header[10] = count;
        net.deliver(header, &frame(count, 60));
        assert_eq!(net.receive(), Some(frame(count, 60)));
    }
}

#[test]
fn a_lie_in_the_receive_ring_breaks_the_device() {
    let lies: [fn(&mut vdpa::testing::DeviceRing); 3] = [
        |ring| ring.complete(0xffff_ffff, 60),
        |ring| ring.complete(16, 60),
        |ring| ring.set_used_index(17),
    ];
    for lie in lies {
        let mut net = Setup::default().start();
        net.world.parent.with_ring(RX, lie);
        assert_out_of_use(&mut net);
    }
}

#[test]
fn a_lie_in_the_transmit_ring_breaks_the_device() {
    let mut net = Setup::default().start();
    for seed in 0..16 {
        assert!(net.send(&frame(seed, 60)));
    }
    net.link_is_up();
    net.world.parent.with_ring(TX, |ring| ring.complete(3, 1));
    assert!(net.send(&frame(16, 60)), "the stack's timers must go on");
    assert!(net.reports("tx dropped: 1 (no device)"));
    assert!(!net.link_is_up());
}

#[test]
fn a_device_that_asks_for_a_reset_wakes_the_stack_and_is_out_of_use() {
    let mut net = Setup::default().start();
    assert_eq!(net.receive(), None);
    assert!(net.link_is_up());
    let before = net.alarm.count();
    net.world.parent.demand_reset();
    net.world.platform.run_until_stalled();
    assert!(net.alarm.count() > before);
    assert!(!net.link_is_up());
    assert_out_of_use(&mut net);
}

proptest! {
    /// Whatever the device writes: no panic, no endless loop, and no byte of a frame that it has
    /// not said it wrote.
    #[test]
    fn nonsense_is_survived(
        features in prop_oneof![
            Just(F::empty()),
            Just(F::MRG_RXBUF),
            Just(F::MRG_RXBUF | F::GUEST_CSUM),
        ],
        packets in vec((vec(any::<u8>(), 0..80), 0..100u32, 0..4u8), 1..30),
    ) {
        let mut net = Setup::with(features).start();
        for (mut bytes, written, span) in packets {
            if bytes.len() > 11 {
                bytes[10..12].copy_from_slice(&[span, 0]);
            }
            let Some(request) = net.world.parent.pop(RX) else { break };
            net.world.parent.with_ring(RX, |ring| {
                ring.write(&request, 0, &bytes);
                ring.complete(u32::from(request.head), written);
            });
            if let Some(frame) = net.receive() {
                prop_assert!(frame.len() >= 14);
                prop_assert!(frame.len() <= written as usize - 12);
            }
        }
        net.world.remove(vdpa::device::Removal::Orderly);
        net.receive();
        prop_assert_eq!(net.world.memory(), 0);
    }
}
