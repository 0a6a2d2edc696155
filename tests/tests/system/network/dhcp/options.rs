//! What servers put into their messages.

use super::{CASE, Case, TAKEN, WITHOUT_GATEWAY, ip};
use crate::network::server::{Ask, DISCOVER, GUEST, Options, SERVER, Script};

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

/// Servers that offer addresses which nobody can have.
pub fn addresses() -> Vec<Case> {
    vec![
        bad_address!("127.0.0.1"),
        bad_address!("0.0.0.0"),
        bad_address!("0.1.2.3"),
        bad_address!("224.0.0.1"),
        bad_address!("240.0.0.1"),
        bad_address!("255.255.255.255"),
        bad_address!("192.168.77.0"),
        bad_address!("192.168.77.255"),
    ]
}

/// Servers whose options differ from the usual ones.
pub fn options() -> Vec<Case> {
    vec![
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
    ]
}
