//! The state of the machine, collected for the page.

use alloc::string::ToString;
use alloc::vec::Vec;

use kernel::embassy_time::Instant;
use web::status::{Address, Files, Memory, Status, VdpaDevice};

use crate::site::Site;

/// The state now.
pub(crate) async fn status(site: &Site) -> Status {
    Status {
        uptime_ms: Instant::now().as_millis(),
        memory: memory(site),
        ipv4: site
            .stack
            .config_v4()
            .map(|config| address(&config.address, config.gateway)),
        ipv6: site
            .stack
            .config_v6()
            .map(|config| address(&config.address, config.gateway)),
        files: match site.files().await {
            Ok(files) => files.status(),
            Err(reason) => Files::Unavailable {
                reason: reason.to_string(),
            },
        },
        http: site.counters.http(site.shares.connections),
        vdpa: vdpa(site).await,
        devices: site.system.devices().describe().children,
    }
}

fn address(address: &impl ToString, gateway: Option<impl ToString>) -> Address {
    Address {
        address: address.to_string(),
        gateway: gateway.map(|gateway| gateway.to_string()),
    }
}

fn memory(site: &Site) -> Memory {
    let figures = site.system.memory();
    Memory {
        used: figures.used,
        total: figures.total,
        left: figures.left_for_simulators(),
    }
}

async fn vdpa(site: &Site) -> Vec<VdpaDevice> {
    let reports = site.system.management().devices(None).await;
    let devices = site.system.vdpa().devices();
    let driver = |name: &str| {
        let device = devices.iter().find(|device| device.node().name() == name)?;
        device.node().driver()
    };
    let reports = reports.unwrap_or_default().into_iter();
    reports
        .map(|report| VdpaDevice {
            driver: driver(&report.name),
            report,
        })
        .collect()
}
