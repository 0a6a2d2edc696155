//! The IP stack: `embassy-net` on the first network interface.

mod early;

use alloc::boxed::Box;
use alloc::sync::Arc;

use embassy_net::{Config, ConfigV4, DhcpConfig, Stack, StackResources, StaticConfigV4};
use embassy_time::{Duration, with_timeout};

use self::early::{Address, Early};
use crate::cpu;
use crate::ip_config::{BadIpConfig, IpConfig};
use crate::system::System;

/// The most sockets that the stack can have at once, two of its own among them, for DHCP and DNS.
pub const SOCKETS: usize = 64;
/// After how long without an address people are told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The machine has no network interface, or all are in use.
    #[error("there is no network interface")]
    NoInterface,
    /// The key `ip` of the command line makes no sense.
    #[error("ip: {0}")]
    BadConfig(BadIpConfig),
}

/// Takes the first interface and runs a stack on it, which gets its address in its own time.
pub(crate) fn start(system: &System) -> Result<Stack<'static>, NetworkError> {
    let config = system
        .command_line()
        .get("ip")
        .map_or(Ok(IpConfig::Dhcp), str::parse);
    let config = config.map_err(NetworkError::BadConfig)?;
    let device = system.nets().take().ok_or(NetworkError::NoInterface)?;
    let address = Arc::<Address>::default();
    let interface = Early::new(device, system.nets(), &address);

    let resources: &'static mut StackResources<SOCKETS> =
        Box::leak(Box::new(StackResources::new()));
    let (stack, mut runner) =
        embassy_net::new(interface, stack_config(&config), resources, cpu::random());
    system.spawn("network", async move { runner.run().await });
    system.spawn("address", async move {
        follow(stack, &config, &address).await;
    });
    Ok(stack)
}

/// Waits for the stack's address on each of its interfaces, and says what it is.
async fn follow(stack: Stack<'static>, config: &IpConfig, address: &Address) {
    loop {
        while with_timeout(PATIENCE, stack.wait_config_up())
            .await
            .is_err()
        {
            log::warn!("{}: no address yet", address.interface());
        }
        if let Some(assigned) = stack.config_v4() {
            report(&address.interface(), &assigned, config);
            address.assign(assigned.address.address());
        }
        address.exchanged().await;
    }
}

fn report(interface: &str, assigned: &StaticConfigV4, config: &IpConfig) {
    let by = if *config == IpConfig::Dhcp {
        " by DHCP"
    } else {
        ""
    };
    match assigned.gateway {
        Some(gateway) => log::info!("{interface}: {}{by}, gateway {gateway}", assigned.address),
        None => log::info!("{interface}: {}{by}", assigned.address),
    }
}

fn stack_config(config: &IpConfig) -> Config {
    let mut stack_config = Config::default();
    stack_config.ipv4 = match config {
        IpConfig::Dhcp => ConfigV4::Dhcp(dhcp_config()),
        IpConfig::Static {
            address,
            prefix,
            gateway,
            dns,
        } => ConfigV4::Static(StaticConfigV4 {
            address: embassy_net::Ipv4Cidr::new(*address, *prefix),
            gateway: *gateway,
            dns_servers: dns.clone(),
        }),
    };
    stack_config
}

/// DHCP that asks again soon if an answer is lost: the usual first waits of 10 and 5 seconds suit
/// networks that come up slowly.
fn dhcp_config() -> DhcpConfig {
    let mut config = DhcpConfig::default();
    let retry = &mut config.retry_config;
    retry.discover_timeout /= 10;
    retry.initial_request_timeout /= 5;
    config
}
