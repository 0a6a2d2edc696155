//! A given address, and who can be reached with it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use qemu::running::Running;

use crate::network::server::GUEST;
use crate::network::wire::{GUEST_MAC, Wire, arp, console, mac_of, machine, ping};

system_tests![
    ping_is_answered_up_to_the_largest_packet,
    a_gateway_may_be_outside_of_the_network,
    hosts_of_other_networks_on_the_link_are_told_who_has_the_address,
    an_address_is_defended_against_another_host,
];

const BOOT: Duration = Duration::from_secs(60);
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 9);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);

fn boot(append: &str) -> (Running, Wire) {
    let (guest, wire) = machine(append);
    let mut guest = guest.spawn().unwrap();
    guest
        .wait_for("site: serving", Instant::now() + BOOT)
        .unwrap();
    (guest, wire)
}

fn host(address: Ipv4Addr) -> bool {
    address != GUEST
}

fn ping_is_answered_up_to_the_largest_packet() {
    let (_guest, wire) = boot("ip=192.168.77.50/24");
    for length in [0, 1, 56, 1471, 1472] {
        let (to, data) = ping(&wire, (NEAR, GUEST), length, host).unwrap();
        let expected: Vec<u8> = (0..length).map(|index| index as u8).collect();
        assert_eq!(to, mac_of(NEAR));
        assert_eq!(data[..length], expected, "{length} bytes");
    }
}

fn a_gateway_may_be_outside_of_the_network() {
    for (address, gateway, near) in [
        ("192.168.77.50/32", "192.168.77.1", "192.168.77.1"),
        ("192.168.77.50/32", "10.1.0.1", "10.1.0.1"),
        ("192.168.77.50/24", "10.1.0.1", "192.168.77.9"),
    ] {
        let (_guest, wire) = boot(&format!("ip={address},gw={gateway}"));
        let mac = |text: &str| mac_of(text.parse().unwrap());
        let reached = ping(&wire, (FAR, GUEST), 56, host).unwrap();
        assert_eq!(reached.0, mac(gateway), "{address} by {gateway}");
        let reached = ping(&wire, (NEAR, GUEST), 56, host).unwrap();
        assert_eq!(reached.0, mac(near), "{address} by {gateway}");
        let asker = gateway.parse().unwrap();
        let request = arp(1, (mac(gateway), asker), ([0; 6], GUEST), [0xff; 6]);
        wire.send(&request);
        assert!(
            is_answered(&wire, asker),
            "{gateway} is told who has {address}"
        );
    }
}

fn hosts_of_other_networks_on_the_link_are_told_who_has_the_address() {
    let (_guest, wire) = boot("ip=192.168.77.50/24");
    wire.send(&arp(1, (mac_of(FAR), FAR), ([0; 6], GUEST), [0xff; 6]));
    assert!(is_answered(&wire, FAR));
}

/// Whether `asker` is told by ARP that the guest has its address.
fn is_answered(wire: &Wire, asker: Ipv4Addr) -> bool {
    let expected = arp(2, (GUEST_MAC, GUEST), (mac_of(asker), asker), mac_of(asker));
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Some(frame) = wire.receive(Duration::from_millis(20))
            && frame.starts_with(&expected)
        {
            return true;
        }
    }
    false
}

fn an_address_is_defended_against_another_host() {
    let (mut guest, wire) = boot("ip=192.168.77.50/24");
    while wire.receive(Duration::from_millis(200)).is_some() {}
    let other = [2, 0, 0, 0, 0, 0x99];
    for _ in 0..3 {
        wire.send(&arp(1, (other, GUEST), ([0; 6], GUEST), [0xff; 6]));
    }
    let announced = arp(1, (GUEST_MAC, GUEST), ([0; 6], GUEST), [0xff; 6]);
    let mut announcements = 0;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let frame = wire.receive(Duration::from_millis(100));
        announcements += usize::from(frame.is_some_and(|frame| frame.starts_with(&announced)));
    }
    assert_eq!(announcements, 1, "once is enough");
    let told = "net0: 02:00:00:00:00:99 uses 192.168.77.50 too";
    assert!(console(&mut guest).iter().any(|line| line.contains(told)));
}
