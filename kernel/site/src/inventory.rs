//! The state of the machine, collected for the page.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use embassy_time::Instant;
use vdpa::tree::{Node, QueueReport};
use web::status::{Device, Fact, Files, Memory, Network, Queue, Status, VdpaDevice};

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
        devices: site
            .system
            .devices()
            .children()
            .iter()
            .map(device)
            .collect(),
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
    let config = site.stack.config_v4()?;
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
            kind: report.type_name().to_string(),
            mgmtdev: report.manager.to_string(),
            queues: report.max_queues,
            driver: driver(&report.name),
            name: report.name,
        })
        .collect()
}

/// A node and everything below it. Parents own children nowhere, so there are no cycles.
fn device(node: &Arc<Node>) -> Device {
    let report = node.report().unwrap_or_default();
    Device {
        name: node.name().to_string(),
        driver: node.driver(),
        facts: report
            .facts
            .into_iter()
            .map(|(name, value)| Fact { name, value })
            .collect(),
        features: report.features,
        queues: report.queues.iter().map(queue).collect(),
        children: node.children().iter().map(device).collect(),
    }
}

fn queue(report: &QueueReport) -> Queue {
    Queue {
        index: report.index,
        name: report.name,
        size: report.size,
        added: report.counters.added,
        used: report.counters.used,
        kicks: report.counters.kicks,
        suppressed: report.counters.suppressed,
        interrupts: report.interrupts,
    }
}
