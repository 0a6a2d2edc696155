//! When servers answer, how often, and whom.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{CASE, Case, FAR, TAKEN, ip};
use crate::network::server::{
    ACK, Ask, DECLINE, DISCOVER, GUEST, NAK, OFFER, Options, REQUEST, SERVER, Script, fixed,
    message,
};

/// Servers that take their time, and leases that end.
pub fn times() -> Vec<Case> {
    vec![
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
    ]
}

/// What comes of leases that are renewed after a second.
pub fn renewals() -> Vec<Case> {
    vec![
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
    ]
}

/// Servers that err, and several of them.
pub fn servers() -> Vec<Case> {
    vec![
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
    ]
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
