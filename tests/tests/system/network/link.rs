//! A link that goes away for a while.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use qemu::device::{Net, NetBackend};
use tests::qmp::{Cable, Socket};
use tests::web::connect;

use crate::network::server::{ACK, DISCOVER, GUEST, NAK, Options, REQUEST, Script};
use crate::network::wire::{console, machine};

system_tests![
    a_lease_is_confirmed_after_the_link_was_away_and_kept_if_nobody_answers,
    connections_go_on_when_the_link_comes_back,
];

const PATIENCE: Duration = Duration::from_secs(60);

fn a_lease_is_confirmed_after_the_link_was_away_and_kept_if_nobody_answers() {
    let (guest, wire) = machine("");
    let (guest, socket) = Socket::open(guest).unwrap();
    let mut guest = guest.spawn().unwrap();
    let mut script = Script::new();
    let mut qmp = None;
    let until = Instant::now() + PATIENCE;
    // Until the server has not answered, answered, and said no.
    while script.count(REQUEST) < 7 || script.count(DISCOVER) < 2 {
        assert!(
            Instant::now() < until,
            "{script:#?}\n{:#?}",
            console(&mut guest)
        );
        script.speak(&wire);
        let Some(frame) = wire.receive(Duration::from_millis(20)) else {
            continue;
        };
        let Some(ask) = script.hear(&frame) else {
            continue;
        };
        match script.count(REQUEST) {
            0 | 1 => script.lease(&ask, GUEST, &Options::usual()),
            // The first one after the link has come back is not answered.
            2 => {}
            3..7 => script.answer(&ask, ACK, GUEST, &Options::usual()),
            _ => script.answer(&ask, NAK, Ipv4Addr::UNSPECIFIED, &Options::usual()),
        }
        if matches!(script.count(REQUEST), 1 | 3..7) {
            script.speak(&wire);
            let qmp = qmp.get_or_insert_with(|| socket.connect().unwrap());
            thread::sleep(Duration::from_millis(300));
            for cable in [Cable::Out, Cable::In] {
                qmp.set_link("net0", cable).unwrap();
                thread::sleep(Duration::from_millis(300));
            }
        }
    }
    for ask in &script.asks[2..7] {
        assert_eq!(
            (ask.requested, ask.server, ask.from),
            (Some(GUEST), None, Ipv4Addr::UNSPECIFIED),
            "the state INIT-REBOOT"
        );
    }
    let lines = console(&mut guest);
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("192.168.77.50/24 by DHCP"), 1, "{lines:#?}");
    assert_eq!(count("is given up: the server wants it back"), 1);
}

fn connections_go_on_when_the_link_comes_back() {
    for ip in ["dhcp", "10.0.2.15/24,gw=10.0.2.2"] {
        // Free until somebody else takes it: the kernel hands out ephemeral ports in turn.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let (mut guest, _) = machine(&format!("ip={ip}"));
        guest.extra.clear();
        guest.nets = vec![Net::new(NetBackend::User {
            forwards: vec![(port, 80)],
        })];
        let (guest, socket) = Socket::open(guest).unwrap();
        let mut guest = guest.spawn().unwrap();
        let mut said = |text: &str| {
            let said = guest.wait_for(text, Instant::now() + PATIENCE);
            said.unwrap_or_else(|error| panic!("{ip}: {error}\n{:#?}", guest.console()));
        };
        said("site: serving");
        let mut qmp = socket.connect().unwrap();
        let mut client = connect(port).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"GET /api/status HTTP/1.1\r\n").unwrap();
        thread::sleep(Duration::from_millis(200));
        qmp.set_link("net0", Cable::Out).unwrap();
        said("net0: link down");
        thread::sleep(Duration::from_secs(1));
        qmp.set_link("net0", Cable::In).unwrap();
        said("net0: link up");
        client
            .write_all(b"Host: guest\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{ip}: {answer}");
    }
}
