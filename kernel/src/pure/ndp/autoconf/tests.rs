//! Tests of the state machine: a router and a stranger on the link, and a clock.

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn link_local() -> Ipv6Addr {
    ip("fe80::5054:ff:fe12:3456")
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn up(config: &str) -> Autoconf {
    let mut autoconf = Autoconf::new(MAC, MAC, &config.parse().unwrap());
    autoconf.set_link(seconds(0), true);
    autoconf
}

/// What a router says: for how long it is one, and its prefixes with the seconds that they are
/// valid and preferred.
fn router(address: &str, lifetime: u16, prefixes: &[(&str, u32, u32)]) -> Vec<u8> {
    let mut message = Vec::from([134, 0, 0, 0, 64, 0]);
    message.extend(lifetime.to_be_bytes());
    message.extend([0; 8]);
    for (prefix, valid, preferred) in prefixes {
        message.extend([3, 4, 64, 0xc0]);
        message.extend(valid.to_be_bytes());
        message.extend(preferred.to_be_bytes());
        message.extend([0; 4]);
        message.extend(ip(prefix).octets());
    }
    message::frame(ROUTER_MAC, ip(address), ALL_NODES, message)
}

/// What it does until it waits.
fn run(autoconf: &mut Autoconf, now: Duration) -> (Vec<Vec<u8>>, Option<Configuration>) {
    let (mut frames, mut last) = (Vec::new(), None);
    for _ in 0..100 {
        match autoconf.step(now) {
            Step::Send(frame) => frames.push(frame),
            Step::Configure(configuration) => last = Some(configuration),
            Step::Duplicate(_) => {}
            Step::Wait(until) => {
                assert!(until.is_none_or(|until| until > now), "it does not end");
                return (frames, last);
            }
        }
    }
    panic!("it does not end");
}

fn address(configuration: Option<Configuration>) -> Option<(Ipv6Addr, u8)> {
    configuration.and_then(|configuration| configuration.address)
}

/// Up, with what this router has said at the start.
fn configured(said: &[u8]) -> (Autoconf, Configuration) {
    let mut autoconf = up("auto");
    run(&mut autoconf, seconds(0));
    autoconf.receive(seconds(0), said);
    run(&mut autoconf, seconds(0));
    let (_, configuration) = run(&mut autoconf, seconds(1));
    (autoconf, configuration.unwrap())
}

#[test]
fn an_address_is_probed_for_a_second_before_it_is_used() {
    let mut autoconf = up("auto");
    let (frames, configuration) = run(&mut autoconf, seconds(0));
    assert_eq!(
        frames,
        [
            probe(MAC, link_local()),
            router_solicitation(MAC, Ipv6Addr::UNSPECIFIED)
        ]
    );
    assert_eq!(configuration, None);
    autoconf.receive(
        seconds(0),
        &router("fe80::2", 1800, &[("fec0::", 86400, 14400)]),
    );
    let own = ip("fec0::5054:ff:fe12:3456");
    let (frames, configuration) = run(&mut autoconf, seconds(0));
    assert_eq!(
        (frames, configuration),
        (Vec::from([probe(MAC, own)]), None)
    );
    let (frames, configuration) = run(&mut autoconf, Duration::from_millis(999));
    assert_eq!((frames.len(), configuration), (0, None));
    let (frames, configuration) = run(&mut autoconf, seconds(1));
    let expected = Configuration {
        is_open: true,
        address: Some((own, 64)),
        gateway: Some(ip("fe80::2")),
        dns: NameServers::new(),
    };
    assert_eq!((frames.len(), configuration), (0, Some(expected)));
}

#[test]
fn an_address_of_another_host_is_left_to_it() {
    let own = ip("fec0::5054:ff:fe12:3456");
    for objection in [advertisement(ROUTER_MAC, own), probe(ROUTER_MAC, own)] {
        let mut autoconf = up("auto");
        autoconf.receive(seconds(0), &router("fe80::2", 1800, &[("fec0::", 9, 9)]));
        run(&mut autoconf, seconds(0));
        autoconf.receive(seconds(0), &objection);
        assert_eq!(autoconf.step(seconds(0)), Step::Duplicate(own));
        let (_, configuration) = run(&mut autoconf, seconds(1));
        let configuration = configuration.unwrap();
        assert!(configuration.is_open, "the link-local address is free");
        assert_eq!(configuration.address, None);
    }
    // The owner of the link-local address has the same hardware address.
    let mut autoconf = up("2001:db8::2/64");
    run(&mut autoconf, seconds(0));
    autoconf.receive(seconds(0), &advertisement(ROUTER_MAC, link_local()));
    assert_eq!(run(&mut autoconf, seconds(9)).1, None);
    // What one has sent oneself comes back from some links.
    let mut autoconf = up("auto");
    run(&mut autoconf, seconds(0));
    autoconf.receive(seconds(0), &probe(MAC, link_local()));
    assert!(run(&mut autoconf, seconds(1)).1.unwrap().is_open);
}

#[test]
fn whoever_tries_an_address_that_is_taken_is_told() {
    let (mut autoconf, _) = configured(&router("fe80::2", 1800, &[("fec0::", 99, 99)]));
    let own = ip("fec0::5054:ff:fe12:3456");
    for target in [own, link_local()] {
        autoconf.receive(seconds(2), &probe(ROUTER_MAC, target));
        let (frames, _) = run(&mut autoconf, seconds(2));
        assert_eq!(frames, [advertisement(MAC, target)]);
    }
    autoconf.receive(seconds(2), &probe(ROUTER_MAC, ip("fec0::1")));
    assert_eq!(run(&mut autoconf, seconds(2)), (Vec::new(), None));
}

#[test]
fn a_given_address_stays_whatever_routers_say() {
    let mut autoconf = up("2001:db8::2/48,gw=2001:db8::1,dns=2001:db8::53");
    let (frames, _) = run(&mut autoconf, seconds(0));
    let own = ip("2001:db8::2");
    assert_eq!(frames, [probe(MAC, link_local()), probe(MAC, own)]);
    autoconf.receive(seconds(0), &router("fe80::2", 1800, &[("fec0::", 99, 99)]));
    let (_, configuration) = run(&mut autoconf, seconds(1));
    let configuration = configuration.unwrap();
    assert_eq!(configuration.address, Some((own, 48)));
    assert_eq!(configuration.gateway, Some(ip("2001:db8::1")));
    assert_eq!(configuration.dns[..], [ip("2001:db8::53")]);
}

#[test]
fn lifetimes_end() {
    let (mut autoconf, first) = configured(&router("fe80::2", 60, &[("fec0::", 90, 80)]));
    assert_eq!(first.gateway, Some(ip("fe80::2")));
    let (frames, second) = run(&mut autoconf, seconds(60));
    let second = second.unwrap();
    assert_eq!((second.address, second.gateway), (first.address, None));
    assert_eq!(frames, [router_solicitation(MAC, link_local())]);
    let (_, third) = run(&mut autoconf, seconds(90));
    assert_eq!(third.unwrap().address, None);
}

#[test]
fn a_router_that_is_none_any_more_is_not_used() {
    let (mut autoconf, _) = configured(&router("fe80::2", 60, &[("fec0::", 90, 80)]));
    autoconf.receive(seconds(2), &router("fe80::3", 60, &[]));
    assert_eq!(
        run(&mut autoconf, seconds(2)).1,
        None,
        "the first one is good"
    );
    autoconf.receive(seconds(3), &router("fe80::2", 0, &[]));
    let (_, configuration) = run(&mut autoconf, seconds(3));
    assert_eq!(configuration.unwrap().gateway, Some(ip("fe80::3")));
}

#[test]
fn a_short_lifetime_takes_no_address_away() {
    let (mut autoconf, _) = configured(&router("fe80::2", 9000, &[("fec0::", 86400, 14400)]));
    autoconf.receive(seconds(2), &router("fe80::2", 9000, &[("fec0::", 1, 1)]));
    autoconf.receive(seconds(2), &router("fe80::2", 9000, &[("fec0::", 0, 0)]));
    assert_eq!(run(&mut autoconf, seconds(10)).1, None);
    assert_eq!(run(&mut autoconf, seconds(7201)).1, None);
    let (_, configuration) = run(&mut autoconf, seconds(7202));
    assert_eq!(configuration.unwrap().address, None, "two hours later");
}

#[test]
fn the_best_of_several_prefixes_is_used() {
    for (prefixes, expected) in [
        (
            &[("fd00::", 99, 99), ("2001:db8::", 99, 99)][..],
            "2001:db8::",
        ),
        (&[("2001:db8::", 99, 0), ("fd00::", 99, 99)], "fd00::"),
        (
            &[("2001:db8:1::", 99, 99), ("2001:db8:2::", 99, 99)],
            "2001:db8:1::",
        ),
        (&[("2001:db8::", 99, 0)], "2001:db8::"),
    ] {
        let (_, configuration) = configured(&router("fe80::2", 60, prefixes));
        let own = ip(expected).to_bits() | link_local().to_bits() & u128::from(u64::MAX);
        assert_eq!(configuration.address, Some((own.into(), 64)), "{expected}");
    }
}

#[test]
fn prefixes_that_make_no_address_make_none() {
    for prefix in [
        ("fe80::", 99, 99),
        ("ff02::", 99, 99),
        ("::", 99, 99),
        ("fec0::", 9, 99),
        ("fec0::", 0, 0),
    ] {
        let (_, configuration) = configured(&router("fe80::2", 60, &[prefix]));
        assert_eq!(configuration.address, None, "{prefix:?}");
    }
    for (place, value) in [(54 + 16 + 2, 63), (54 + 16 + 3, 0x80)] {
        let mut said = router("fe80::2", 60, &[("fec0::", 99, 99)]);
        said[place] = value;
        let message = Vec::from(&said[54..]);
        let said = message::frame(ROUTER_MAC, ip("fe80::2"), ALL_NODES, {
            let mut message = message;
            message[2..4].fill(0);
            message
        });
        assert_eq!(configured(&said).1.address, None, "{value}");
    }
}

#[test]
fn routers_are_looked_for_ever_more_seldom() {
    let mut autoconf = up("auto");
    let mut times = Vec::new();
    let mut now = seconds(0);
    while times.len() < 13 {
        match autoconf.step(now) {
            Step::Send(frame) if frame.len() != 78 => times.push(now.as_secs()),
            Step::Wait(until) => now = until.unwrap(),
            _ => {}
        }
    }
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(
        gaps,
        [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]
    );
}

#[test]
fn a_link_that_comes_back_has_other_routers() {
    let (mut autoconf, _) = configured(&router("fe80::2", 60, &[("fec0::", 90, 80)]));
    autoconf.set_link(seconds(5), false);
    assert_eq!(
        run(&mut autoconf, seconds(61)).0.len(),
        0,
        "nobody hears it"
    );
    autoconf.set_link(seconds(70), true);
    let (frames, _) = run(&mut autoconf, seconds(70));
    assert_eq!(frames, [router_solicitation(MAC, link_local())]);
}

#[test]
fn hosts_that_play_many_routers_change_little() {
    let (mut autoconf, _) = configured(&router("fe80::2", 60, &[("fec0::", 90, 80)]));
    let mut changes = 0;
    for number in 0..10_000_u32 {
        let now = seconds(2) + Duration::from_millis(number.into());
        let (address, prefix) = (
            std::format!("fe80::{:x}", 3 + number % 900),
            std::format!("2001:db8:{:x}::", number % 5000),
        );
        let lifetime = if number % 2 == 0 { 0 } else { 60 };
        let said = router(&address, lifetime, &[(&prefix, 99, number % 100)]);
        autoconf.receive(now, &said);
        autoconf.receive(now, &router("fe80::2", lifetime, &[]));
        changes += usize::from(run(&mut autoconf, now).1.is_some());
    }
    assert!(changes <= 8 + 10, "{changes} changes in 10 seconds");
    assert!(autoconf.advertised.routers.len() <= advertised::ROUTERS_MAX);
    assert!(autoconf.advertised.prefixes.len() <= advertised::PREFIXES_MAX);
}

#[test]
fn name_servers_come_and_go() {
    let mut message = Vec::from([134, 0, 0, 0, 64, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend([25, 3, 0, 0, 0, 0, 0, 30]);
    message.extend(ip("fec0::3").octets());
    message.extend([3, 4, 64, 0xc0, 0, 0, 0, 90, 0, 0, 0, 90, 0, 0, 0, 0]);
    message.extend(ip("fec0::").octets());
    let said = message::frame(ROUTER_MAC, ip("fe80::2"), ALL_NODES, message);
    let (mut autoconf, configuration) = configured(&said);
    assert_eq!(configuration.dns[..], [ip("fec0::3")]);
    let (_, configuration) = run(&mut autoconf, seconds(30));
    assert!(address(configuration.clone()).is_some());
    assert!(configuration.unwrap().dns.is_empty());
}
