//! Servers of all kinds, and what the guest makes of each.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::server::{
    ACK, Ask, DECLINE, DISCOVER, GUEST, NAK, OFFER, Options, REQUEST, SERVER, Script, fixed,
    message,
};
use crate::wire::{GUEST_MAC, answer_arp, arp, console, mac_of, machine, ping};

/// A case that takes longer is lost. A busy host needs some seconds for the boot.
const PATIENCE: Duration = Duration::from_secs(40);
/// So many machines run at once.
const MACHINES: usize = 3;

/// Where a host of another network is.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);

/// A server, and what comes of it.
struct Case {
    name: &'static str,
    serve: fn(&Ask, &mut Script),
    /// What the console says, in this order.
    says: &'static [&'static str],
    /// The router that answers to another network go through, if the guest is asked from there.
    router: Option<&'static str>,
    /// What else has to be so in the end.
    check: fn(&Script) -> Result<(), String>,
}

const CASE: Case = Case {
    name: "",
    serve: |ask, script| script.lease(ask, GUEST, &Options::usual()),
    says: &["net0: 192.168.77.50/24 by DHCP, gateway 192.168.77.1"],
    router: None,
    check: |_| Ok(()),
};
const TAKEN: &str = "net0: 192.168.77.50/24 by DHCP, gateway 192.168.77.1";
const WITHOUT_GATEWAY: &str = "net0: 192.168.77.50/24 by DHCP";

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// Offers an address that nobody can have, and a good one when it is asked again.
fn bad_address(address: &str, ask: &Ask, script: &mut Script) {
    if script.count(DISCOVER) < 2 {
        script.lease(ask, ip(address), &Options::usual());
    } else {
        script.lease(ask, GUEST, &Options::usual());
    }
}

macro_rules! bad_address {
    ($address:literal) => {
        Case {
            name: concat!("offers ", $address),
            serve: |ask, script| bad_address($address, ask, script),
            says: &[concat!($address, " is no address for a host"), TAKEN],
            ..CASE
        }
    };
}

/// A server whose options differ from the usual ones.
macro_rules! options {
    ($name:literal, $change:expr, $says:expr) => {
        options!($name, $change, $says, None)
    };
    ($name:literal, $change:expr, $says:expr, $router:expr) => {
        Case {
            name: $name,
            serve: |ask, script| {
                let change: fn(Options) -> Options = $change;
                script.lease(ask, GUEST, &change(Options::usual()));
            },
            says: $says,
            router: $router,
            ..CASE
        }
    };
}

/// Leases are renewed after a second, and the renewal is answered by `renewed`.
fn renewal(ask: &Ask, script: &mut Script, renewed: impl FnOnce(&mut Script)) {
    if ask.kind == REQUEST && !ask.client.is_unspecified() {
        renewed(script);
    } else {
        script.lease(ask, GUEST, &Options::usual().renewed_soon(20));
    }
}

/// The guest asked this often before it had `seconds`.
fn asked(script: &Script, kind: u8, at_least: usize) -> Result<(), String> {
    let count = script.count(kind);
    (count >= at_least)
        .then_some(())
        .ok_or(format!("{count} messages of kind {kind}"))
}

fn cases() -> Vec<Case> {
    let addresses = [
        bad_address!("127.0.0.1"),
        bad_address!("0.0.0.0"),
        bad_address!("0.1.2.3"),
        bad_address!("224.0.0.1"),
        bad_address!("240.0.0.1"),
        bad_address!("255.255.255.255"),
        bad_address!("192.168.77.0"),
        bad_address!("192.168.77.255"),
    ];
    let options = [
        options!("usual", |it| it, &[TAKEN], Some("192.168.77.1")),
        options!("no router", |it| it.without(3), &[WITHOUT_GATEWAY]),
        options!(
            "two routers",
            |it| it.with(3, [192, 168, 77, 1, 192, 168, 77, 2]),
            &[TAKEN],
            Some("192.168.77.1")
        ),
        options!(
            "the guest itself is the first of two routers",
            |it| it.with(3, [192, 168, 77, 50, 192, 168, 77, 2]),
            &[
                "the router 192.168.77.50 is ignored",
                "by DHCP, gateway 192.168.77.2"
            ],
            Some("192.168.77.2")
        ),
        options!(
            "no router can be one",
            |it| it.with(3, [0, 0, 0, 0, 224, 0, 0, 1, 192, 168, 77, 255]),
            &["the router 0.0.0.0 is ignored", WITHOUT_GATEWAY]
        ),
        options!(
            "a router in five bytes",
            |it| it.with(3, [192, 168, 77, 1, 9]),
            &[TAKEN],
            Some("192.168.77.1")
        ),
        options!(
            "a mask of 32 bits",
            |it| it.with(1, [255; 4]),
            &["net0: 192.168.77.50/32 by DHCP, gateway 192.168.77.1"],
            Some("192.168.77.1")
        ),
        options!(
            "a gateway outside of the network",
            |it| it.with(3, [10, 1, 0, 1]),
            &["net0: 192.168.77.50/24 by DHCP, gateway 10.1.0.1"],
            Some("10.1.0.1")
        ),
        options!(
            "as Google's cloud does it",
            |it| it
                .with(1, [255; 4])
                .without(3)
                .with(121, [32, 192, 168, 77, 1, 0, 0, 0, 0, 0, 192, 168, 77, 1]),
            &["net0: 192.168.77.50/32 by DHCP, gateway 192.168.77.1"],
            Some("192.168.77.1")
        ),
        options!(
            "routes go before routers",
            |it| it.with(121, [24, 10, 9, 8, 192, 168, 77, 9, 0, 192, 168, 77, 3]),
            &["by DHCP, gateway 192.168.77.3"],
            Some("192.168.77.3")
        ),
        options!(
            "routes without a default",
            |it| it.with(121, [8, 10, 192, 168, 77, 9]),
            &[WITHOUT_GATEWAY]
        ),
        options!(
            "malformed routes",
            |it| it.with(121, [33, 10, 9, 8, 7]),
            &["malformed routes are ignored", TAKEN],
            Some("192.168.77.1")
        ),
        options!("no mask", |it| it.without(1), &[TAKEN]),
        options!(
            "a mask with holes",
            |it| it.with(1, [255, 0, 255, 0]),
            &["the mask 255.0.255.0 is ignored", TAKEN]
        ),
        options!(
            "a mask of nothing",
            |it| it.with(1, [0; 4]),
            &["the mask 0.0.0.0 is ignored", TAKEN]
        ),
        options!("half a mask", |it| it.with(1, [255, 255]), &[TAKEN]),
        options!("no server identifier", |it| it.without(54), &[TAKEN]),
        options!(
            "the server identifier twice",
            |mut it| {
                it.0.push((54, SERVER.octets().to_vec()));
                it
            },
            &[TAKEN]
        ),
        options!("no lease time", |it| it.without(51), &[TAKEN]),
        options!("a lease of no time", |it| it.lease(0), &[TAKEN]),
        options!("a lease for ever", |it| it.lease(u32::MAX), &[TAKEN]),
        options!("empty options", |it| it.with(12, []).with(15, []), &[TAKEN]),
        options!(
            "many options",
            |it| it
                .with(15, [b'x'; 200])
                .with(42, SERVER.octets())
                .with(26, [0, 1])
                .with(
                    6,
                    [1, 1, 1, 1, 0, 0, 0, 0, 8, 8, 8, 8, 9, 9, 9, 9, 8, 8, 4, 4]
                ),
            &[
                "the name server 0.0.0.0 is ignored",
                "gateway 192.168.77.1, DNS 1.1.1.1, DNS 8.8.8.8, DNS 9.9.9.9"
            ]
        ),
        options!(
            "T2 before T1",
            |it| it.with(58, [0, 0, 0, 100]).with(59, [0, 0, 0, 1]),
            &[TAKEN]
        ),
        options!(
            "T1 after the end",
            |it| it.with(58, [255; 4]).with(59, [255; 4]),
            &[TAKEN]
        ),
        options!(
            "an option longer than the message",
            |mut it| {
                it.0.insert(0, (0, Vec::new()));
                it
            },
            &[TAKEN]
        ),
    ];
    let times = [
        Case {
            name: "offers take 1.2 seconds",
            serve: |ask, script| slow(ask, script, 1200),
            ..CASE
        },
        Case {
            name: "offers take six seconds",
            serve: |ask, script| slow(ask, script, 6000),
            ..CASE
        },
        Case {
            name: "three messages are lost, then two confirmations",
            serve: |ask, script| {
                if script.count(DISCOVER) > 3 && script.count(REQUEST) != 1 {
                    script.lease(ask, GUEST, &Options::usual());
                }
            },
            ..CASE
        },
        Case {
            name: "T1 is a second",
            serve: |ask, script| {
                let options = Options::usual()
                    .lease(3600)
                    .with(58, [0, 0, 0, 1])
                    .with(59, [0, 0, 0, 9]);
                if script.count(REQUEST) == 3 {
                    script.answer(ask, NAK, ip("0.0.0.0"), &Options::usual());
                } else {
                    script.lease(ask, GUEST, &options);
                }
            },
            says: &[TAKEN, "192.168.77.50 is given up: the server wants it back"],
            check: |script| {
                let renewal = &script.asks[2];
                if renewal.client != GUEST || renewal.from != GUEST || renewal.broadcast {
                    return Err(format!("{renewal:?}"));
                }
                Ok(())
            },
            ..CASE
        },
        Case {
            name: "leases of two seconds, which are renewed",
            serve: |ask, script| {
                if script.count(REQUEST) == 5 {
                    script.answer(ask, NAK, ip("0.0.0.0"), &Options::usual());
                } else {
                    script.lease(ask, GUEST, &Options::usual().lease(2));
                }
            },
            says: &[TAKEN, "192.168.77.50 is given up: the server wants it back"],
            ..CASE
        },
        Case {
            name: "a lease that nobody renews",
            serve: |ask, script| {
                if script.count(REQUEST) <= 1 || script.count(DISCOVER) == 2 {
                    script.lease(ask, GUEST, &Options::usual().renewed_soon(4));
                }
            },
            says: &[
                TAKEN,
                "192.168.77.50 is given up: the lease has ended",
                TAKEN,
            ],
            check: |script| asked(script, REQUEST, 4),
            ..CASE
        },
    ];
    let renewals = [
        Case {
            name: "renewed with another address",
            serve: |ask, script| {
                let options = Options::usual().renewed_soon(20);
                renewal(ask, script, |script| {
                    script.answer(ask, ACK, ip("192.168.77.56"), &options);
                });
            },
            says: &[TAKEN, "net0: 192.168.77.56/24 by DHCP"],
            ..CASE
        },
        Case {
            name: "renewed with another gateway",
            serve: |ask, script| {
                let options = Options::usual().with(3, [192, 168, 77, 4]);
                renewal(ask, script, |script| {
                    script.answer(ask, ACK, GUEST, &options);
                });
            },
            says: &[TAKEN, "192.168.77.50/24 by DHCP, gateway 192.168.77.4"],
            router: Some("192.168.77.4"),
            ..CASE
        },
        Case {
            name: "renewed with another name server",
            serve: |ask, script| {
                let options = Options::usual().with(6, [9, 9, 9, 9]);
                renewal(ask, script, |script| {
                    script.answer(ask, ACK, GUEST, &options);
                });
            },
            says: &[TAKEN, "gateway 192.168.77.1, DNS 9.9.9.9"],
            ..CASE
        },
        Case {
            name: "renewed with nothing but a time, then with a name server",
            serve: |ask, script| {
                let bare = Options(Vec::new()).renewed_soon(20);
                let options = if script.count(REQUEST) < 3 {
                    bare
                } else {
                    bare.with(6, [9, 9, 9, 9])
                };
                renewal(ask, script, |script| {
                    script.answer(ask, ACK, GUEST, &options);
                });
            },
            says: &[
                TAKEN,
                "192.168.77.50/24 by DHCP, gateway 192.168.77.1, DNS 9.9.9.9",
            ],
            router: Some("192.168.77.1"),
            ..CASE
        },
        Case {
            name: "renewed by unicast from another address",
            serve: |ask, script| {
                let options = Options::usual().with(6, [9, 9, 9, 9]);
                renewal(ask, script, |script| {
                    let ack = message(ask, ACK, GUEST, &options);
                    script.say(Duration::ZERO, ip("192.168.77.7"), GUEST, &ack);
                });
            },
            says: &[TAKEN, "DNS 9.9.9.9"],
            ..CASE
        },
        Case {
            name: "renewed with 127.0.0.1, which is refused",
            serve: |ask, script| {
                renewal(ask, script, |script| {
                    script.answer(ask, ACK, ip("127.0.0.1"), &Options::usual());
                });
            },
            says: &[TAKEN, "127.0.0.1 is no address for a host"],
            router: Some("192.168.77.1"),
            ..CASE
        },
        Case {
            name: "NAK to a renewal, then another address",
            serve: |ask, script| {
                if script.count(DISCOVER) > 1 {
                    script.lease(ask, ip("192.168.77.55"), &Options::usual());
                } else {
                    renewal(ask, script, |script| {
                        script.answer(ask, NAK, ip("0.0.0.0"), &Options::usual());
                    });
                }
            },
            says: &[
                TAKEN,
                "192.168.77.50 is given up: the server wants it back (NAK)",
                "net0: 192.168.77.55/24 by DHCP",
            ],
            ..CASE
        },
        Case {
            name: "NAK of another server",
            serve: |ask, script| {
                let other = Options::usual().with(54, [192, 168, 77, 66]);
                renewal(ask, script, |script| {
                    script.answer(ask, NAK, ip("0.0.0.0"), &other);
                    let options = Options::usual().with(6, [9, 9, 9, 9]);
                    script.answer(ask, ACK, GUEST, &options);
                });
            },
            says: &[TAKEN, "DNS 9.9.9.9"],
            check: |script| match script.count(DISCOVER) {
                1 => Ok(()),
                more => Err(format!("{more} messages to find a server")),
            },
            ..CASE
        },
    ];
    let servers = [
        Case {
            name: "NAK to the first request",
            serve: |ask, script| {
                if ask.kind == REQUEST && script.count(REQUEST) == 1 {
                    script.answer(ask, NAK, ip("0.0.0.0"), &Options::usual());
                } else {
                    script.lease(ask, GUEST, &Options::usual());
                }
            },
            says: &["the offer was withdrawn (NAK)", TAKEN],
            ..CASE
        },
        Case {
            name: "answers for others first",
            serve: |ask, script| {
                let kind = if ask.kind == DISCOVER { OFFER } else { ACK };
                for place in [0, 4, 28, 33, 236] {
                    let mut other = message(ask, kind, ip("192.168.77.99"), &Options::usual());
                    other[place] ^= 1;
                    script.say(Duration::ZERO, SERVER, Ipv4Addr::BROADCAST, &other);
                }
                script.lease(ask, GUEST, &Options::usual());
            },
            ..CASE
        },
        Case {
            name: "two servers, of which the first is taken",
            serve: |ask, script| {
                let first = Options::usual().with(54, [192, 168, 77, 66]);
                if ask.kind == DISCOVER {
                    script.answer(ask, OFFER, GUEST, &first);
                    script.answer(ask, OFFER, ip("192.168.77.60"), &Options::usual());
                } else {
                    script.answer(ask, ACK, GUEST, &first);
                }
            },
            check: |script| {
                let request = &script.asks[1];
                (request.server == Some(ip("192.168.77.66")) && request.requested == Some(GUEST))
                    .then_some(())
                    .ok_or(format!("{request:?}"))
            },
            ..CASE
        },
        Case {
            name: "each answer thrice",
            serve: |ask, script| {
                for _ in 0..3 {
                    script.lease(ask, GUEST, &Options::usual());
                }
            },
            router: Some("192.168.77.1"),
            ..CASE
        },
        Case {
            name: "answers go to the address that is offered",
            serve: |ask, script| {
                let kind = if ask.kind == DISCOVER { OFFER } else { ACK };
                let answer = message(ask, kind, GUEST, &Options::usual());
                script.say(Duration::ZERO, SERVER, GUEST, &answer);
            },
            ..CASE
        },
        Case {
            name: "answers go to the broadcast address of the network",
            serve: |ask, script| {
                let kind = if ask.kind == DISCOVER { OFFER } else { ACK };
                let answer = message(ask, kind, GUEST, &Options::usual());
                script.say(Duration::ZERO, SERVER, ip("192.168.77.255"), &answer);
            },
            ..CASE
        },
        Case {
            name: "answers without padding",
            serve: |ask, script| {
                let kind = if ask.kind == DISCOVER { OFFER } else { ACK };
                let mut answer = fixed(ask, GUEST);
                answer.extend([0, 0, 0, 53, 1, kind]);
                answer.extend(Options::usual().bytes());
                script.say(Duration::ZERO, SERVER, Ipv4Addr::BROADCAST, &answer);
            },
            ..CASE
        },
        Case {
            name: "options in the fields for names",
            serve: |ask, script| {
                let kind = if ask.kind == DISCOVER { OFFER } else { ACK };
                let mut answer = fixed(ask, GUEST);
                answer.extend([52, 1, 3, 53, 1, kind, 255]);
                answer.resize(300, 0);
                let (file, name) = (Options::usual().without(3), Options(Vec::new()));
                let (file, name) = (file.bytes(), name.with(3, [192, 168, 77, 2]).bytes());
                answer[108..108 + file.len()].copy_from_slice(&file);
                answer[44..44 + name.len()].copy_from_slice(&name);
                script.say(Duration::ZERO, SERVER, Ipv4Addr::BROADCAST, &answer);
            },
            says: &["192.168.77.50/24 by DHCP, gateway 192.168.77.2"],
            router: Some("192.168.77.2"),
            ..CASE
        },
        Case {
            name: "rubbish first",
            serve: |ask, script| {
                let good = message(ask, OFFER, GUEST, &Options::usual());
                for length in [0, 1, 239, 240, 241, 243] {
                    script.say(Duration::ZERO, SERVER, Ipv4Addr::BROADCAST, &good[..length]);
                }
                let mut odd = fixed(ask, GUEST);
                odd.extend([255; 1000]);
                script.say(Duration::ZERO, SERVER, Ipv4Addr::BROADCAST, &odd);
                let mut odd = fixed(ask, GUEST);
                odd.extend([53, 1, 99, 52, 1, 255, 3, 255]);
                script.say(Duration::ZERO, SERVER, Ipv4Addr::BROADCAST, &odd);
                script.lease(ask, GUEST, &Options::usual());
            },
            ..CASE
        },
        Case {
            name: "behind a relay",
            serve: |ask, script| {
                let kind = if ask.kind == DISCOVER { OFFER } else { ACK };
                let far = Options::usual().with(54, FAR.octets());
                let mut answer = message(ask, kind, GUEST, &far);
                answer[24..28].copy_from_slice(&SERVER.octets());
                script.say(Duration::ZERO, SERVER, Ipv4Addr::BROADCAST, &answer);
            },
            router: Some("192.168.77.1"),
            ..CASE
        },
        Case {
            name: "an address that another host has",
            serve: |ask, script| {
                let address = if script.count(DECLINE) == 0 {
                    "192.168.77.80"
                } else {
                    "192.168.77.50"
                };
                script.lease(ask, ip(address), &Options::usual());
            },
            says: &[
                "net0: 192.168.77.80/24 by DHCP",
                "192.168.77.80 is given up: 02:00:c0:a8:4d:50 uses it",
                TAKEN,
            ],
            check: |script| {
                let declined = script.asks.iter().find(|ask| ask.kind == DECLINE);
                let declined = declined.ok_or("no DECLINE")?;
                (declined.requested == Some(ip("192.168.77.80")))
                    .then_some(())
                    .ok_or(format!("{declined:?}"))
            },
            ..CASE
        },
    ];
    let all = addresses.into_iter().chain(options).chain(times);
    all.chain(renewals).chain(servers).collect()
}

fn slow(ask: &Ask, script: &mut Script, milliseconds: u64) {
    let kind = if ask.kind == DISCOVER { OFFER } else { ACK };
    let wait = Duration::from_millis(if ask.kind == DISCOVER {
        milliseconds
    } else {
        0
    });
    let answer = message(ask, kind, GUEST, &Options::usual());
    script.say(wait, SERVER, Ipv4Addr::BROADCAST, &answer);
}

/// Boots the guest before the server and waits for what it says.
fn run(case: &Case) -> Result<(), String> {
    let (guest, wire) = machine("");
    let mut guest = guest.spawn().map_err(|error| error.to_string())?;
    let mut script = Script::new();
    let until = Instant::now() + PATIENCE;
    let hosts = |address: Ipv4Addr| address != GUEST && address.octets()[3] < 50;
    loop {
        script.speak(&wire);
        if let Some(frame) = wire.receive(Duration::from_millis(10)) {
            answer_arp(&wire, &frame, hosts);
            contradict(&wire, &frame);
            if let Some(ask) = script.hear(&frame) {
                (case.serve)(&ask, &mut script);
            }
        }
        let lines = console(&mut guest);
        let mut rest = lines.iter();
        let told = |text: &&str| rest.any(|line| line.contains(*text));
        if case.says.iter().all(told) {
            break;
        }
        if Instant::now() > until {
            return Err(format!("{:#?}\n{:#?}", script.asks, lines));
        }
    }
    if let Some(router) = case.router {
        let (to, _) = ping(&wire, (FAR, GUEST), 56, hosts).ok_or("no answer to ping")?;
        if to != mac_of(ip(router)) {
            return Err(format!("answers go to {to:02x?}, not to {router}"));
        }
    }
    (case.check)(&script)
}

/// 192.168.77.80 is a host of its own.
fn contradict(wire: &crate::wire::Wire, frame: &[u8]) {
    let host = ip("192.168.77.80");
    let claims = frame.len() >= 42 && frame[12..14] == [8, 6] && frame[28..32] == host.octets();
    if claims && frame[6..12] == GUEST_MAC {
        wire.send(&arp(2, (mac_of(host), host), (GUEST_MAC, host), GUEST_MAC));
    }
}

#[test]
fn every_server_gets_the_client_it_deserves() {
    let cases = cases();
    let failures = Mutex::new(Vec::new());
    let waiting = Mutex::new(cases.iter().collect::<VecDeque<_>>());
    thread::scope(|scope| {
        for _ in 0..MACHINES {
            scope.spawn(|| {
                loop {
                    let Some(case) = waiting.lock().unwrap().pop_front() else {
                        return;
                    };
                    if let Err(error) = run(case) {
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("{}: {error}", case.name));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}
