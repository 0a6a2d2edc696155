//! Servers of all kinds, and what the guest makes of each.

mod options;
mod servers;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::network::server::{Ask, GUEST, Options, Script};
use crate::network::wire::{GUEST_MAC, answer_arp, arp, console, mac_of, machine, ping};

system_tests![every_server_gets_the_client_it_deserves,];

/// A case that takes longer is lost. A busy host needs some seconds for the boot.
const PATIENCE: Duration = Duration::from_secs(40);
/// So many machines run at once: most of the time each waits for a server, or for an answer that
/// must not come.
const MACHINES: usize = 8;

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

fn cases() -> Vec<Case> {
    let content = [options::addresses(), options::options()];
    let conduct = [servers::times(), servers::renewals(), servers::servers()];
    content.into_iter().chain(conduct).flatten().collect()
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
fn contradict(wire: &crate::network::wire::Wire, frame: &[u8]) {
    let host = ip("192.168.77.80");
    let claims = frame.len() >= 42 && frame[12..14] == [8, 6] && frame[28..32] == host.octets();
    if claims && frame[6..12] == GUEST_MAC {
        wire.send(&arp(2, (mac_of(host), host), (GUEST_MAC, host), GUEST_MAC));
    }
}

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
