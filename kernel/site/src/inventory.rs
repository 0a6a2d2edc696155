//! The state of the machine, collected for the page.

use alloc::string::ToString;
use alloc::vec::Vec;

use kernel::embassy_time::Instant;
use web::status::{Files, Memory, Network, Status, VdpaDevice};

use crate::site::Site;

/// The state now.
pub(crate) async fn status(site: &Site) -> Status {
    Status {
        uptime_ms: Instant::now().as_millis(),
        memory: memory(site),
        network: network(site),
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

fn memory(site: &Site) -> Memory {
    let figures = site.system.memory();
    Memory {
        used: figures.used,
        total: figures.total,
        left: figures.left_for_simulators(),
    }
}

fn network(site: &Site) -> Option<Network> {
    if let Some(config) = site.stack.config_v4() {
        return Some(Network {
            address: config.address.to_string(),
            gateway: config.gateway.map(|gateway| gateway.to_string()),
        });
    }
    let config = site.stack.config_v6()?;
    Some(Network {
        address: config.address.to_string(),
        gateway: config.gateway.map(|gateway| gateway.to_string()),
    })
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
