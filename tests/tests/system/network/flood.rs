//! Connections that nobody completes.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use qemu::running::Running;

use crate::network::server::GUEST;
use crate::network::tcp::{fetch, syn};
use crate::network::wire::{Wire, machine};

system_tests![
    half_open_connections_leave_a_place_for_others,
    after_a_flood_the_server_answers_within_five_seconds,
    clients_that_say_nothing_give_their_places_back,
];

const BOOT: Duration = Duration::from_secs(60);
const ENDS: (IpAddr, IpAddr) = (
    IpAddr::V4(Ipv4Addr::new(192, 168, 77, 1)),
    IpAddr::V4(GUEST),
);
/// How long a client may wait for its answer.
const ANSWER: Duration = Duration::from_secs(5);

fn boot() -> (Running, Wire) {
    let (guest, wire) = machine("ip=192.168.77.50/24,gw=192.168.77.1");
    let mut guest = guest.spawn().unwrap();
    guest
        .wait_for("site: serving", Instant::now() + BOOT)
        .unwrap();
    let answer = fetch(&wire, ENDS, 5000, ANSWER).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    (guest, wire)
}

/// Sends SYNs of as many hosts, and nothing more.
fn half_open(wire: &Wire, count: u32) {
    for number in 0..count {
        let [_, a, b, c] = number.to_be_bytes();
        let host = Ipv4Addr::new(172, 16 + a, b, c);
        wire.send(&syn((host.into(), GUEST.into()), 2000));
        // What the guest answers would fill the link.
        while number % 16 == 0 && wire.receive(Duration::ZERO).is_some() {}
    }
}

fn half_open_connections_leave_a_place_for_others() {
    let (_guest, wire) = boot();
    half_open(&wire, 60);
    for client in 0..4 {
        let answer = fetch(&wire, ENDS, 6000 + client, ANSWER);
        assert!(answer.is_some(), "client {client} gets no answer");
    }
}

fn after_a_flood_the_server_answers_within_five_seconds() {
    let (_guest, wire) = boot();
    half_open(&wire, 100_000);
    let answer = fetch(&wire, ENDS, 6000, ANSWER);
    assert!(answer.is_some(), "no answer");
}

fn clients_that_say_nothing_give_their_places_back() {
    let (_guest, wire) = boot();
    // With the one before as many as there are places, and all of them open.
    let clients: Vec<_> = (0..55)
        .map(|client| crate::network::tcp::open(&wire, ENDS, 7000 + client, ANSWER))
        .collect();
    assert!(clients.iter().all(|client| *client), "{clients:?}");
    thread::sleep(Duration::from_secs(1));
    let answer = fetch(&wire, ENDS, 8000, Duration::from_secs(40));
    assert!(answer.is_some(), "no answer");
}
