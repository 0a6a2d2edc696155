//! The default unikernel: serves the files of its disk over HTTP and shows its own devices.
//!
//! `/` is the page with the devices, `/api/status` the same as JSON, `/files/` the disk,
//! `/api/vdpa` management of the vDPA devices, which is on the console too. The options on the
//! command line are the kernel's own, `net.port=` for the port, `disk=` for the disk or the
//! partition whose files are served (`blk1`, `blk0p2`), `nbd=` for a disk over the network, if the
//! program is built with it, and `admin=http`, which lets everybody who reaches the server change
//! devices.

#![no_std]
#![no_main]

extern crate alloc;

mod answer;
mod commands;
mod connection;
mod disk;
mod download;
mod files;
mod inventory;
mod management;
#[cfg(feature = "nbd")]
mod remote;
mod routes;
mod sending;
mod site;
mod socket;

use alloc::boxed::Box;
use alloc::format;
use core::num::NonZero;

use kernel::System;
use kernel::log::{info, warn};
use thiserror::Error;

use crate::files::Files;
use crate::site::Site;

kernel::entry!(main);

const DEFAULT_PORT: u16 = 80;

/// The keys of the command line that mean something, the kernel's among them.
const KEYS: &[&str] = &[
    "admin",
    "disk",
    #[cfg(feature = "nbd")]
    "nbd",
    "net.port",
];

/// Why nothing can be served.
#[derive(Debug, Error)]
enum SiteError {
    #[error(transparent)]
    Network(#[from] kernel::NetworkError),
    #[error("net.port: not a number from 1 to 65535")]
    Port,
}

async fn main(system: System) -> Result<(), SiteError> {
    let line = system.command_line();
    let mut unknown = line.unknown(KEYS);
    if let Some(first) = unknown.next() {
        let words = 1 + unknown.count();
        warn!("site: words of the command line without a meaning: {words}, first {first:.40}");
    }
    if let Some(other) = line.get("admin").filter(|value| *value != "http") {
        warn!("admin={other}: the only value is http; it is ignored");
    }
    let port = port(&system)?;
    system.offer_commands(commands::commands(&system));
    let files = Files::open(&system).await;
    let stack = system.network()?;
    // The site lives as long as the machine: every connection's task refers to it.
    let site: &'static Site = Box::leak(Box::new(Site::new(system.clone(), stack, files)));
    for number in 0..site.shares.connections {
        system.spawn(&format!("http{number}"), connection::serve(site, port));
    }
    #[cfg(feature = "nbd")]
    let remote = start_remote(site);
    stack.wait_config_up().await;
    #[cfg(feature = "nbd")]
    remote.tried.wait().await;
    announce(site, port).await;
    core::future::pending().await
}

/// Lets the disk come over the network, if the command line names one.
#[cfg(feature = "nbd")]
fn start_remote(site: &'static Site) -> &'static remote::Remote {
    let remote: &'static remote::Remote = Box::leak(Box::new(remote::Remote::new()));
    site.system
        .spawn("nbd", remote.serve(&site.system, site.stack));
    site.system.spawn("nbd files", async {
        remote.late.wait().await;
        // What was asked for its disk before has found none.
        let _ = site.files().await;
    });
    remote
}

fn port(system: &System) -> Result<u16, SiteError> {
    let Some(text) = system.command_line().get("net.port") else {
        return Ok(DEFAULT_PORT);
    };
    let port: Option<NonZero<u16>> = text.parse().ok();
    port.map(NonZero::get).ok_or(SiteError::Port)
}

/// The last line of a start: what is served, and where.
async fn announce(site: &Site, port: u16) {
    let stack = &site.stack;
    let address = match (stack.config_v4(), stack.config_v6()) {
        (Some(config), _) => format!("http://{}:{port}/", config.address.address()),
        (None, Some(config)) => format!("http://[{}]:{port}/", config.address.address()),
        (None, None) => format!("port {port}"),
    };
    match site.files().await {
        Ok(files) => info!("site: serving {} at {address}", files.describe().await),
        Err(reason) => info!("site: serving no files ({reason}) at {address}"),
    }
}
