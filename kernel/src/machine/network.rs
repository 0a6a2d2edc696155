//! The IP stack: `embassy-net` on the first network interface, with IPv4 and IPv6.

mod backlog;
mod interface;
mod ipv4;
mod ipv6;
mod wire;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::net::{Ipv4Addr, Ipv6Addr};

use embassy_net::{Config, Stack, StackResources};

pub use self::backlog::{AcceptError, accept};
use self::interface::Interface;
use self::wire::Wire;
use crate::machine::cpu;
use crate::machine::system::System;
use crate::pure::ip_config::IpConfig;
use crate::pure::ip6_config::Ip6Config;
use crate::pure::static_config::BadIpConfig;

/// The most sockets that the stack can have at once, two of them for the kernel's own use.
pub const SOCKETS: usize = 64;

/// Why there is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The machine has no network interface, or all are in use.
    #[error("there is no network interface")]
    NoInterface,
    /// The key `ip` of the command line makes no sense.
    #[error("ip: {0}")]
    BadConfig(BadIpConfig<Ipv4Addr>),
    /// The key `ip6` of the command line makes no sense.
    #[error("ip6: {0}")]
    BadIp6Config(BadIpConfig<Ipv6Addr>),
}

impl System {
    /// Takes the first network interface and runs an IP stack on it, configured by the key `ip` of
    /// the command line: `dhcp`, which is what happens without the key, or
    /// `ADDRESS/LENGTH[,gw=ADDRESS][,dns=ADDRESS]`; and by the key `ip6`: `auto`, `off`, or the
    /// same with IPv6 addresses.
    ///
    /// The stack may not have its address yet; [`Stack::wait_config_up`] waits for it. A server
    /// listens before that: connections that are attempted in the meantime reach it as soon as
    /// there is an address.
    ///
    /// The address may change, and come and go, with what a DHCP server says; the console tells it.
    /// The stack's own configuration has somebody else for a gateway outside of the network. Name
    /// servers are asked by an application that turns on the feature `dns` of `embassy-net`.
    ///
    /// The stack has [`SOCKETS`](crate::SOCKETS) sockets, of which two are for the kernel's own
    /// use; `embassy-net` panics when the application wants more. A server accepts with
    /// [`accept`](crate::accept).
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn network(&self) -> Result<Stack<'static>, NetworkError> {
        let config = self
            .command_line()
            .get("ip")
            .map_or(Ok(IpConfig::Dhcp), str::parse);
        let config = config.map_err(NetworkError::BadConfig)?;
        let config6 = self
            .command_line()
            .get("ip6")
            .map_or(Ok(Ip6Config::Auto), str::parse);
        let config6 = config6.map_err(NetworkError::BadIp6Config)?;
        let device = self.nets().take().ok_or(NetworkError::NoInterface)?;
        let wire = Arc::<Wire>::default();
        let interface = Interface::new(device, self.nets(), &wire);

        let resources: &'static mut StackResources<SOCKETS> =
            Box::leak(Box::new(StackResources::new()));
        let (stack, mut runner) =
            embassy_net::new(interface, Config::default(), resources, cpu::random());
        self.spawn("network", async move { runner.run().await });
        self.spawn("ipv6", ipv6::configure(stack, config6, Arc::clone(&wire)));
        self.spawn("ipv4", ipv4::configure(stack, config, wire));
        Ok(stack)
    }
}
