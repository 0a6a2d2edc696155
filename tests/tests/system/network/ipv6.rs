//! Routers of all kinds, and what the guest makes of what they advertise.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use qemu::running::Running;

use crate::network::tcp::fetch;
use crate::network::wire::{
    GUEST_MAC, Wire, advertisement, answer_neighbor, console, icmpv6, machine,
};

system_tests![
    the_page_and_ping_are_answered_at_both_addresses,
    a_given_address_is_served_and_off_is_silent,
    an_address_that_another_host_has_is_not_taken,
    advertisements_from_elsewhere_are_not_believed_and_a_flood_of_them_stops_nothing,
    a_host_that_tries_the_address_is_told_and_a_router_may_retire,
];

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client may wait for its answer.
const ANSWER: Duration = Duration::from_secs(5);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
const GUEST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
/// A host of another network.
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9);
const TAKEN: &str = "net0: 2001:db8::5054:ff:fe12:3456/64 by SLAAC, gateway fe80::2";

/// A router advertisement with these seconds of the router and of its prefix.
fn router(lifetime: u16, valid: u32) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(lifetime.to_be_bytes());
    message.extend([0; 8]);
    // No link has so short packets, and nothing comes of it.
    message.extend([5, 1, 0, 0, 0, 0, 0, 68]);
    message.extend([3, 4, 64, 0xc0]);
    message.extend([valid.to_be_bytes(), valid.to_be_bytes()].concat());
    message.extend([0; 4]);
    message.extend(PREFIX.octets());
    message
}

/// Answers who is looked for, and with `said` who looks for routers, until the console says `text`.
fn until(guest: &mut Running, wire: &Wire, said: &[u8], text: &str) {
    let end = Instant::now() + PATIENCE;
    while !console(guest).iter().any(|line| line.contains(text)) {
        assert!(Instant::now() < end, "{text}: {:#?}", console(guest));
        let Some(frame) = wire.receive(Duration::from_millis(50)) else {
            continue;
        };
        answer_neighbor(wire, &frame);
        if frame.len() > 54 && frame[12..14] == [0x86, 0xdd] && frame[54] == 133 {
            wire.send(said);
        }
    }
}

/// The default unikernel, with an address.
fn boot(append: &str) -> (Running, Wire) {
    let (guest, wire) = machine(append);
    let mut guest = guest.spawn().unwrap();
    let said = icmpv6(ROUTER, ALL_NODES, 255, router(1800, 7200));
    until(&mut guest, &wire, &said, TAKEN);
    (guest, wire)
}

/// Whether an echo request to the guest is answered.
fn ping(wire: &Wire, from: Ipv6Addr, to: Ipv6Addr) -> bool {
    let request = icmpv6(from, to, 64, vec![128, 0, 0, 0, 1, 2, 0, 1, 7, 7]);
    let end = Instant::now() + ANSWER;
    let mut sent = None;
    while Instant::now() < end {
        if sent.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(1)) {
            wire.send(&request);
            sent = Some(Instant::now());
        }
        let Some(frame) = wire.receive(Duration::from_millis(50)) else {
            continue;
        };
        answer_neighbor(wire, &frame);
        if frame.len() >= 64 && frame[12..14] == [0x86, 0xdd] && frame[54] == 129 {
            return frame[22..38] == to.octets() && frame[38..54] == from.octets();
        }
    }
    false
}

fn page(wire: &Wire, from: Ipv6Addr, to: Ipv6Addr, port: u16) -> bool {
    let ends = (IpAddr::V6(from), IpAddr::V6(to));
    fetch(wire, ends, port, ANSWER).is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn the_page_and_ping_are_answered_at_both_addresses() {
    let (_guest, wire) = boot("ip=192.168.77.50/24");
    assert!(ping(&wire, FAR, GUEST));
    assert!(ping(&wire, ROUTER, LINK_LOCAL));
    assert!(page(&wire, FAR, GUEST, 5000));
    assert!(page(&wire, ROUTER, LINK_LOCAL, 5001));
    let four = [[192, 168, 77, 1], [192, 168, 77, 50]].map(IpAddr::from);
    let answer = fetch(&wire, (four[0], four[1]), 5002, ANSWER);
    assert!(answer.is_some(), "IPv4 beside it");
}

fn a_given_address_is_served_and_off_is_silent() {
    let (guest, wire) = machine("ip=192.168.77.50/24 ip6=2001:db8::50/64,gw=fe80::2");
    let mut guest = guest.spawn().unwrap();
    until(
        &mut guest,
        &wire,
        &[],
        "net0: 2001:db8::50/64, gateway fe80::2",
    );
    let own = "2001:db8::50".parse().unwrap();
    assert!(ping(&wire, FAR, own));
    assert!(page(&wire, FAR, own, 5000));
    drop(guest);

    let (guest, wire) = machine("ip=192.168.77.50/24 ip6=off");
    let mut guest = guest.spawn().unwrap();
    guest
        .wait_for("site: serving", Instant::now() + PATIENCE)
        .unwrap();
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        wire.send(&icmpv6(ROUTER, ALL_NODES, 255, router(1800, 7200)));
        let frame = wire.receive(Duration::from_millis(100));
        let is_ipv6 = frame.is_some_and(|frame| frame[12..14] == [0x86, 0xdd]);
        assert!(!is_ipv6, "a word of IPv6");
    }
}

fn an_address_that_another_host_has_is_not_taken() {
    let (guest, wire) = machine("ip=192.168.77.50/24");
    let mut guest = guest.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    let told = "net0: another host has fe80::5054:ff:fe12:3456";
    while !console(&mut guest).iter().any(|line| line.contains(told)) {
        assert!(Instant::now() < end, "{:#?}", console(&mut guest));
        let Some(frame) = wire.receive(Duration::from_millis(50)) else {
            continue;
        };
        let probes = frame.len() >= 78 && frame[54] == 135 && frame[22..38] == [0; 16];
        if probes && frame[12..14] == [0x86, 0xdd] {
            let own: [u8; 16] = frame[62..78].try_into().unwrap();
            wire.send(&icmpv6(
                own.into(),
                ALL_NODES,
                255,
                advertisement(own.into()),
            ));
        }
    }
    assert!(!ping(&wire, ROUTER, LINK_LOCAL));
}

fn advertisements_from_elsewhere_are_not_believed_and_a_flood_of_them_stops_nothing() {
    let (mut guest, wire) = boot("ip=192.168.77.50/24");
    let mut broken = router(1800, 7200);
    broken[17] = 0;
    for (from, hops, message) in [
        (ROUTER, 254, router(0, 0)),
        (FAR, 255, router(0, 0)),
        (ROUTER, 255, broken),
    ] {
        wire.send(&icmpv6(from, ALL_NODES, hops, message));
    }
    for number in 0..5000_u16 {
        let [high, low] = number.to_be_bytes();
        let stranger = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number);
        let mut message = router(1800, 7200);
        message[16 + 8 + 16 + 4..][..2].copy_from_slice(&[high, low]);
        wire.send(&icmpv6(stranger, ALL_NODES, 255, message));
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(GUEST.octets());
        message.extend([1, 1, 2, 0, 0, 0, high, low]);
        wire.send(&icmpv6(stranger, GUEST, 255, message));
        while number % 16 == 0 && wire.receive(Duration::ZERO).is_some() {}
    }
    let client = (0..3).any(|client| page(&wire, FAR, GUEST, 5000 + client));
    assert!(client, "{:#?}", console(&mut guest));
    let lines = console(&mut guest).iter();
    assert_eq!(lines.filter(|line| line.contains("by SLAAC")).count(), 1);
}

fn a_host_that_tries_the_address_is_told_and_a_router_may_retire() {
    let (mut guest, wire) = boot("ip=192.168.77.50/24");
    let mut probe = vec![135, 0, 0, 0, 0, 0, 0, 0];
    probe.extend(GUEST.octets());
    let mut group = [0; 16];
    group[..2].copy_from_slice(&[0xff, 2]);
    group[11..13].copy_from_slice(&[1, 0xff]);
    group[13..].copy_from_slice(&GUEST.octets()[13..]);
    wire.send(&icmpv6(Ipv6Addr::UNSPECIFIED, group.into(), 255, probe));
    let end = Instant::now() + ANSWER;
    let is_told = |frame: Vec<u8>| {
        frame[12..14] == [0x86, 0xdd]
            && frame[6..12] == GUEST_MAC
            && frame[54] == 136
            && frame[62..78] == GUEST.octets()
    };
    while !wire.receive(ANSWER).is_some_and(is_told) {
        assert!(Instant::now() < end, "nobody is told");
    }
    wire.send(&icmpv6(ROUTER, ALL_NODES, 255, router(0, 7200)));
    let end = Instant::now() + PATIENCE;
    let alone = |line: &String| line.ends_with("3456/64 by SLAAC");
    while !console(&mut guest).iter().any(alone) {
        assert!(Instant::now() < end, "{:#?}", console(&mut guest));
        wire.receive(Duration::from_millis(50));
    }
}
