//! The IP stack: `embassy-net` on the first network interface, with IPv4 and IPv6.

mod backlog;
mod interface;
mod ipv4;
mod ipv6;
mod wire;

use alloc::boxed::Box;
use alloc::sync::Arc;

use embassy_net::{Config, Stack, StackResources};

pub use self::backlog::{AcceptError, accept};
use self::interface::Interface;
use self::wire::Wire;
use crate::cpu;
use crate::ip_config::{BadIpConfig, IpConfig};
use crate::ip6_config::{BadIp6Config, Ip6Config};
use crate::system::System;

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
    BadConfig(BadIpConfig),
    /// The key `ip6` of the command line makes no sense.
    #[error("ip6: {0}")]
    BadIp6Config(BadIp6Config),
}

/// Takes the first interface and runs a stack on it, which gets its address in its own time.
pub(crate) fn start(system: &System) -> Result<Stack<'static>, NetworkError> {
    let config = system
        .command_line()
        .get("ip")
        .map_or(Ok(IpConfig::Dhcp), str::parse);
    let config = config.map_err(NetworkError::BadConfig)?;
    let config6 = system
        .command_line()
        .get("ip6")
        .map_or(Ok(Ip6Config::Auto), str::parse);
    let config6 = config6.map_err(NetworkError::BadIp6Config)?;
    let device = system.nets().take().ok_or(NetworkError::NoInterface)?;
    let wire = Arc::<Wire>::default();
    let interface = Interface::new(device, system.nets(), &wire);

    let resources: &'static mut StackResources<SOCKETS> =
        Box::leak(Box::new(StackResources::new()));
    let (stack, mut runner) =
        embassy_net::new(interface, Config::default(), resources, cpu::random());
    system.spawn("network", async move { runner.run().await });
    system.spawn("ipv6", ipv6::configure(stack, config6, Arc::clone(&wire)));
    system.spawn("ipv4", ipv4::configure(stack, config, wire));
    Ok(stack)
}
