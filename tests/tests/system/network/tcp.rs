//! As much TCP as a client needs that asks one question, over IPv4 or IPv6.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::network::wire::{
    GUEST_MAC, Wire, answer_arp, answer_neighbor, checksum, ethernet, ipv4, ipv6,
};

const SYN: u8 = 2;
const ACK: u8 = 16;
const PUSH: u8 = 8;
const PORT: u16 = 80;

/// How long after a SYN the next one is sent.
const REPEAT: Duration = Duration::from_secs(1);

/// A segment of a connection between `from` and `to`, in a frame for the guest.
pub fn segment(
    (from, to): (IpAddr, IpAddr),
    source: u16,
    numbers: [u32; 2],
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let mut tcp = [source.to_be_bytes(), PORT.to_be_bytes()].concat();
    tcp.extend(numbers.map(u32::to_be_bytes).concat());
    tcp.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    tcp.extend(data);
    let length = u32::try_from(tcp.len()).unwrap();
    let (ethertype, packet) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let pseudo = [&from.octets()[..], &to.octets(), &[0, 6]].concat();
            let covered = [&pseudo, &(length as u16).to_be_bytes()[..], &tcp].concat();
            tcp[16..18].copy_from_slice(&checksum(&covered).to_be_bytes());
            (0x800, ipv4(from, to, 6, &tcp))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let pseudo = [&from.octets()[..], &to.octets(), &length.to_be_bytes()].concat();
            let covered = [&pseudo, &[0, 0, 0, 6][..], &tcp].concat();
            tcp[16..18].copy_from_slice(&checksum(&covered).to_be_bytes());
            (0x86dd, ipv6(from, to, 6, 64, &tcp))
        }
        _ => panic!("{from} and {to}"),
    };
    ethernet(GUEST_MAC, [2, 0, 0, 0, 0, 1], ethertype, &packet)
}

/// The first segment of a connection.
pub fn syn(ends: (IpAddr, IpAddr), source: u16) -> Vec<u8> {
    segment(ends, source, [1000, 0], SYN, &[])
}

/// A segment of the guest's to the port `port`: its sequence number, its flags, and its data.
fn read(frame: &[u8], port: u16) -> Option<(u32, u8, &[u8])> {
    let tcp = match frame.get(12..14)? {
        [0x08, 0x00] if *frame.get(23)? == 6 => {
            let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            frame.get(34..14 + length)?
        }
        [0x86, 0xdd] if *frame.get(20)? == 6 => frame.get(54..)?,
        _ => return None,
    };
    if *tcp.get(2..4)? != port.to_be_bytes() {
        return None;
    }
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let data = tcp.get(usize::from(tcp[12] >> 4) * 4..)?;
    Some((sequence, tcp[13], data))
}

/// The start of the answer to a request for the page, if there is one within `patience`.
pub fn fetch(
    wire: &Wire,
    ends: (IpAddr, IpAddr),
    source: u16,
    patience: Duration,
) -> Option<String> {
    let until = Instant::now() + patience;
    let mut next_syn = Instant::now();
    let mut open = false;
    while Instant::now() < until {
        if !open && Instant::now() >= next_syn {
            wire.send(&syn(ends, source));
            next_syn = Instant::now() + REPEAT;
        }
        let Some(frame) = wire.receive(Duration::from_millis(20)) else {
            continue;
        };
        answer_arp(wire, &frame, |host| IpAddr::V4(host) != ends.1);
        answer_neighbor(wire, &frame);
        match read(&frame, source) {
            Some((sequence, flags, _)) if flags & (SYN | ACK) == SYN | ACK => {
                open = true;
                let request = b"GET / HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n";
                let numbers = [1001, sequence.wrapping_add(1)];
                wire.send(&segment(ends, source, numbers, ACK | PUSH, request));
            }
            Some((_, _, data)) if !data.is_empty() => {
                return Some(String::from_utf8_lossy(data).into_owned());
            }
            _ => {}
        }
    }
    None
}

/// Opens a connection and says nothing on it. Whether that works within `patience`.
pub fn open(wire: &Wire, ends: (IpAddr, IpAddr), source: u16, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    wire.send(&syn(ends, source));
    while Instant::now() < until {
        let Some(frame) = wire.receive(Duration::from_millis(20)) else {
            continue;
        };
        answer_arp(wire, &frame, |host| IpAddr::V4(host) != ends.1);
        if let Some((sequence, flags, _)) = read(&frame, source)
            && flags & (SYN | ACK) == SYN | ACK
        {
            let numbers = [1001, sequence.wrapping_add(1)];
            wire.send(&segment(ends, source, numbers, ACK, &[]));
            return true;
        }
    }
    false
}
