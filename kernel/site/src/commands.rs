//! What somebody can type on the console.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

use kernel::{ConsoleCommand, System};
use pci::tool;
use vdpa::tree::NodeReport;

/// The commands.
pub(crate) fn commands(system: &System) -> Vec<ConsoleCommand> {
    let management = Arc::clone(system.management());
    let root = Arc::clone(system.devices());
    let bus = Arc::clone(system.pci());
    Vec::from([
        ConsoleCommand::new(
            "vdpa",
            "manages vDPA devices; vdpa help says more",
            move |words| {
                let management = Arc::clone(&management);
                async move {
                    let words = words.iter().map(String::as_str);
                    match vdpa_mgmt::tool::run_words(&management, words).await {
                        Ok(output) => output,
                        Err(error) => format!("error: {error}"),
                    }
                }
            },
        ),
        ConsoleCommand::new(
            "pci",
            "shows PCI functions; pci sriov ADDRESS numvfs COUNT makes virtual ones",
            move |words| {
                let bus = Arc::clone(&bus);
                async move {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let done = async { tool::run(&bus, tool::Command::parse(&words)?).await };
                    match done.await {
                        Ok(functions) => functions.to_string(),
                        Err(error) => format!("error: {error}"),
                    }
                }
            },
        ),
        ConsoleCommand::new("devices", "shows the device tree", move |_| {
            let devices = root.describe().children;
            let tree = devices.iter().map(|device| tree(device, 0)).collect();
            core::future::ready(tree)
        }),
    ])
}

/// A device with its driver and everything below it, a line each.
fn tree(device: &NodeReport, depth: usize) -> String {
    const INDENT: usize = 2;
    let mut lines = format!("{:width$}{}", "", device.name, width = depth * INDENT);
    if let Some(driver) = &device.driver {
        // A string takes any text.
        let _ = write!(lines, " ({driver})");
    }
    lines.push('\n');
    for child in &device.children {
        lines.push_str(&tree(child, depth + 1));
    }
    lines
}
