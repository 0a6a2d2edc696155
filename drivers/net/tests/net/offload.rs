//! Checksums: who computes them, who verifies them.

use embassy_net_driver::{Checksum, Driver};
use virtio::net::F;

use crate::fixture::{HEADER_LEN, Net, PLAIN, Setup};

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

/// RFC 1071, one word after the other.
fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// A UDP datagram over IPv4 from 10.0.2.15 to 10.0.2.2, and its right checksum, which is not in it.
fn udp_over_ipv4(payload: &[u8]) -> (Vec<u8>, u16) {
    let udp_len = 8 + u16::try_from(payload.len()).unwrap();
    let mut frame = vec![0x52; 12];
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend((20 + udp_len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    let mut covered = vec![10, 0, 2, 15, 10, 0, 2, 2, 0, 17];
    covered.extend(udp_len.to_be_bytes());
    let mut datagram = vec![0x04, 0x00, 0x00, 0x07];
    datagram.extend(udp_len.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    covered.extend(&datagram);
    frame.extend(datagram);
    (frame, !ones_complement_sum(&covered))
}

fn with_checksum(mut frame: Vec<u8>, checksum: u16) -> Vec<u8> {
    frame[40..42].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// What a device does with a header that asks for a checksum (VIRTIO 1.2, 5.1.6.2).
fn complete(header: [u8; HEADER_LEN], mut frame: Vec<u8>) -> Vec<u8> {
    assert_eq!(header[0], NEEDS_CSUM);
    let start = usize::from(u16::from_le_bytes([header[6], header[7]]));
    let field = start + usize::from(u16::from_le_bytes([header[8], header[9]]));
    let checksum = !ones_complement_sum(&frame[start..]);
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

#[test]
fn the_device_completes_what_the_driver_leaves_to_it() {
    let mut net = Setup::with(F::CSUM).start();
    for payload in [&b""[..], b"x", b"some payload"] {
        let (frame, checksum) = udp_over_ipv4(payload);
        assert!(net.send(&frame));
        net.link_is_up();
        let (header, sent) = net.sent().unwrap();
        assert_eq!(header[1..6], [0; 5], "no segmentation");
        assert_eq!(
            header[6..10],
            [34, 0, 6, 0],
            "start and offset of the UDP checksum"
        );
        assert_eq!(complete(header, sent), with_checksum(frame, checksum));
    }
}

#[test]
fn padding_that_would_be_summed_too_makes_the_driver_compute() {
    let mut net = Setup::with(F::CSUM).start();
    let (mut frame, checksum) = udp_over_ipv4(b"padded");
    frame.resize(60, 0xee);
    assert!(net.send(&frame));
    net.link_is_up();
    assert_eq!(
        net.sent(),
        Some(([0; HEADER_LEN], with_checksum(frame, checksum)))
    );
}

#[test]
fn without_offload_frames_are_not_touched() {
    let mut net = Setup::default().start();
    let (frame, _) = udp_over_ipv4(b"whatever");
    assert!(net.send(&frame));
    net.link_is_up();
    assert_eq!(net.sent(), Some(([0; HEADER_LEN], frame)));
    let (frame, checksum) = udp_over_ipv4(b"wrong");
    let wrong = with_checksum(frame, checksum ^ 1);
    net.deliver(PLAIN, &wrong);
    assert_eq!(net.receive(), Some(wrong), "the stack verifies");
}

#[test]
fn the_stack_is_told_what_it_need_not_do() {
    let transport = |features| {
        let net = Setup::with(features).start();
        let checksum = Driver::capabilities(&net.interface).checksum;
        assert!(matches!(checksum.ipv4, Checksum::Both), "never offloaded");
        assert!(matches!(checksum.icmpv4, Checksum::Both), "never offloaded");
        assert_eq!(
            core::mem::discriminant(&checksum.tcp),
            core::mem::discriminant(&checksum.udp)
        );
        checksum.tcp
    };
    assert!(matches!(transport(F::empty()), Checksum::Both));
    assert!(matches!(transport(F::CSUM), Checksum::Rx));
    assert!(matches!(transport(F::GUEST_CSUM), Checksum::Tx));
    assert!(matches!(transport(F::CSUM | F::GUEST_CSUM), Checksum::None));
}

fn guest_csum() -> Net {
    Setup::with(F::GUEST_CSUM).start()
}

#[test]
fn a_right_checksum_is_accepted_and_a_wrong_one_dropped() {
    let mut net = guest_csum();
    let (frame, checksum) = udp_over_ipv4(b"verify me");
    let right = with_checksum(frame.clone(), checksum);
    net.deliver(PLAIN, &right);
    net.deliver(PLAIN, &with_checksum(frame, checksum ^ 0x0100));
    assert_eq!(net.receive(), Some(right));
    assert_eq!(net.receive(), None);
    assert!(net.reports("rx dropped: 1 (wrong checksum)"));
}

#[test]
fn what_the_device_has_verified_is_not_verified_again() {
    let mut net = guest_csum();
    let (frame, checksum) = udp_over_ipv4(b"trust me");
    let wrong = with_checksum(frame, checksum ^ 1);
    let mut header = PLAIN;
    header[0] = DATA_VALID;
    net.deliver(header, &wrong);
    assert_eq!(net.receive(), Some(wrong));
}

#[test]
fn an_unfinished_checksum_is_accepted_if_its_place_lies_in_the_frame() {
    let mut net = guest_csum();
    let (frame, _) = udp_over_ipv4(b"local");
    let mut header = PLAIN;
    header[0] = NEEDS_CSUM;
    header[6..10].copy_from_slice(&[34, 0, 6, 0]);
    net.deliver(header, &frame);
    assert_eq!(net.receive(), Some(frame.clone()));
    for (start, offset) in [
        (frame.len(), 0),
        (34, frame.len() - 34 - 1),
        (0xffff, 0xffff),
    ] {
        header[6..8].copy_from_slice(&u16::try_from(start).unwrap().to_le_bytes());
        header[8..10].copy_from_slice(&u16::try_from(offset).unwrap().to_le_bytes());
        net.deliver(header, &frame);
        assert_eq!(net.receive(), None, "checksum at {start} + {offset}");
    }
    assert!(net.reports("rx dropped: 3 (checksum outside the frame)"));
}
