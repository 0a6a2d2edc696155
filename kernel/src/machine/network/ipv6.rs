//! The task that gives the stack its IPv6 address, as routers or the command line say, and tells
//! people.
//!
//! `embassy-net` 0.9 knows one address beside the link-local one, which it has from the start with
//! its feature `slaac`. So the interface keeps IPv6 from the stack until the address is known to be
//! nobody else's, and that feature's own configuration is not used: see [`crate::pure::ndp`].

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write;
use core::net::Ipv6Addr;

use embassy_futures::select::select;
use embassy_net::{ConfigV6, Ipv6Cidr, Stack, StaticConfigV6};
use embassy_time::{Instant, Timer};

use super::wire::Wire;
use crate::machine::time::clock;
use crate::pure::ip6_config::Ip6Config;
use crate::pure::ndp::{Autoconf, Configuration, Step};

/// Configures the stack for as long as the machine runs.
pub(super) async fn configure(stack: Stack<'static>, config: Ip6Config, wire: Arc<Wire>) {
    if config == Ip6Config::Off {
        return;
    }
    // The stack keeps the link-local address of the first interface.
    let identity = wire.look().mac;
    let by = match config {
        Ip6Config::Auto => " by SLAAC",
        _ => "",
    };
    let mut task = Task {
        stack,
        wire,
        by,
        address: None,
    };
    loop {
        let gone = task.run(identity, &config).await;
        task.take(&gone, Configuration::default());
    }
}

struct Task {
    stack: Stack<'static>,
    wire: Arc<Wire>,
    /// Where the address is from.
    by: &'static str,
    address: Option<Ipv6Addr>,
}

impl Task {
    /// Configures one interface, until it becomes another one, and returns its name.
    async fn run(&mut self, identity: [u8; 6], config: &Ip6Config) -> String {
        let first = self.wire.look();
        let mut autoconf = Autoconf::new(first.mac, identity, config);
        loop {
            let seen = self.wire.look();
            if seen.exchanges != first.exchanges {
                return first.name;
            }
            let now = clock::now();
            autoconf.set_link(now, seen.link_is_up);
            while let Some(frame) = self.wire.next_neighbor_message() {
                autoconf.receive(now, &frame);
            }
            match autoconf.step(now) {
                Step::Send(frame) => self.wire.send(&frame),
                Step::Configure(configuration) => self.take(&seen.name, configuration),
                Step::Duplicate(address) => {
                    log::warn!("{}: another host has {address}", seen.name);
                }
                Step::Wait(until) => {
                    let news = self.wire.for_ipv6.wait();
                    if let Some(until) = until {
                        let micros = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
                        select(news, Timer::at(Instant::from_micros(micros))).await;
                    } else {
                        news.await;
                    }
                }
            }
        }
    }

    /// The stack has this from now on.
    fn take(&mut self, name: &str, configuration: Configuration) {
        let Configuration {
            is_open,
            address,
            gateway,
            dns,
        } = configuration;
        let earlier = self.address.take();
        let Some((address, prefix)) = address else {
            self.stack.set_config_v6(ConfigV6::None);
            self.wire.open_ipv6(is_open);
            if let Some(earlier) = earlier {
                log::warn!("{name}: {earlier} is given up");
            }
            return;
        };
        self.address = Some(address);
        let mut line = format!("{name}: {address}/{prefix}{}", self.by);
        for (word, value) in gateway
            .map(|gateway| ("gateway", gateway))
            .into_iter()
            .chain(dns.iter().map(|server| ("DNS", *server)))
        {
            // Strings take everything.
            let _ = write!(line, ", {word} {value}");
        }
        self.stack.set_config_v6(ConfigV6::Static(StaticConfigV6 {
            address: Ipv6Cidr::new(address, prefix),
            gateway,
            dns_servers: dns,
        }));
        self.wire.open_ipv6(is_open);
        log::info!("{line}");
    }
}
