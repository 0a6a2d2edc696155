//! The front page: the device chains with their features and live queue counters.
//!
//! It is complete as it is sent. A small script then asks `/api/status` once a second and replaces
//! the numbers: an element with `data-v="a.0.b"` shows the value at that path of the JSON, written
//! as `data-f` says.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use vdpa::tree::{Bytes, NodeReport, QueueReport};

use crate::escape::{Html, Segment};
use crate::human::{Count, Span};
use crate::management::ROOT;
use crate::status::{Address, Files, Status, VdpaDevice};

const STYLE: &str = include_str!("../assets/style.css");
const SCRIPT: &str = include_str!("../assets/live.js");
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E\
    %3Ccircle cx='16' cy='16' r='11' fill='none' stroke='%233b82f6' stroke-width='6' stroke-dasharray='40 12 8 9'/%3E%3C/svg%3E";

/// The front page with the state `status`.
#[must_use]
pub fn front(status: &Status) -> String {
    document("Ringway", |page| {
        header(page)?;
        tiles(page, status)?;
        files(page, &status.files)?;
        vdpa(page, &status.vdpa)?;
        let chains = chains(&status.devices);
        page.write_str("<h2>Devices</h2>")?;
        for chain in chains.iter().filter(|chain| chain.is_driven()) {
            card(page, chain)?;
        }
        let idle: Vec<_> = chains.iter().filter(|chain| !chain.is_driven()).collect();
        if !idle.is_empty() {
            others(page, &idle)?;
        }
        page.write_str("<footer><span>Ringway, a unikernel on a vDPA bus</span><a href=\"/api/status\">JSON</a></footer>")?;
        write!(page, "<script>{SCRIPT}</script>")
    })
}

/// A whole HTML document around `body`.
pub(crate) fn document(title: &str, body: impl FnOnce(&mut String) -> fmt::Result) -> String {
    written(|page| {
        begin(page, title)?;
        body(page)?;
        page.write_str(END)
    })
}

/// What ends a document.
pub(crate) const END: &str = "</body></html>\n";

/// Begins a document.
pub(crate) fn begin(page: &mut String, title: &str) -> fmt::Result {
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>{}</title><link rel=\"icon\" href=\"{ICON}\"><style>{STYLE}</style></head><body>",
        Html(title)
    )
}

/// What `write` wrote.
pub(crate) fn written(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut text = String::new();
    write(&mut text).expect("a string takes any text, and nothing here fails to format");
    text
}

/// A way through the tree from a device on the hardware's bus to a leaf.
struct Chain<'a> {
    links: Vec<Link<'a>>,
}

/// A device in a chain and its path in the JSON.
#[derive(Clone)]
struct Link<'a> {
    device: &'a NodeReport,
    path: String,
}

impl Chain<'_> {
    fn is_driven(&self) -> bool {
        self.links.iter().any(|link| link.device.driver.is_some())
    }
}

fn chains(devices: &[NodeReport]) -> Vec<Chain<'_>> {
    fn walk<'a>(
        chains: &mut Vec<Chain<'a>>,
        above: &[Link<'a>],
        prefix: &str,
        devices: &'a [NodeReport],
    ) {
        for (index, device) in devices.iter().enumerate() {
            let path = format!("{prefix}.{index}");
            let below = format!("{path}.children");
            let mut links = above.to_vec();
            links.push(Link { device, path });
            if device.children.is_empty() {
                chains.push(Chain { links });
            } else {
                walk(chains, &links, &below, &device.children);
            }
        }
    }
    let mut chains = Vec::new();
    walk(&mut chains, &[], "devices", devices);
    chains
}

fn header(page: &mut String) -> fmt::Result {
    page.write_str(
        "<header class=\"bar\"><div><h1>Ringway</h1>\
         <p class=\"dim\">No operating system here: a unikernel sends this page, its network card and its disk \
         driven over one vDPA bus.</p></div>\
         <span id=\"live\" class=\"live\" hidden>live</span></header>",
    )
}

fn tiles(page: &mut String, status: &Status) -> fmt::Result {
    page.write_str("<section class=\"tiles\">")?;
    tile(page, "Uptime", "uptime_ms", "span", status.uptime_ms, "")?;
    let total = format!("of {}", Bytes(status.memory.total));
    tile(
        page,
        "Memory in use",
        "memory.used",
        "bytes",
        status.memory.used,
        &total,
    )?;
    let limit = format!("of {} at once", status.http.limit);
    tile(
        page,
        "Connections",
        "http.open",
        "count",
        status.http.open,
        &limit,
    )?;
    tile(
        page,
        "Requests",
        "http.requests",
        "count",
        status.http.requests,
        "",
    )?;
    tile(page, "Sent", "http.sent", "bytes", status.http.sent, "")?;
    for (title, address) in [("IPv4", &status.ipv4), ("IPv6", &status.ipv6)] {
        let Some(Address { address, gateway }) = address else {
            continue;
        };
        let gateway = gateway.as_deref().unwrap_or("none");
        write!(
            page,
            "<div class=\"tile wide\"><h3>{title}</h3><b>{}</b><small>router {}</small></div>",
            Html(address),
            Html(gateway)
        )?;
    }
    page.write_str("</section>")
}

fn tile(
    page: &mut String,
    title: &str,
    path: &str,
    form: &str,
    value: u64,
    note: &str,
) -> fmt::Result {
    write!(
        page,
        "<div class=\"tile\"><h3>{title}</h3><b data-v=\"{path}\" data-f=\"{form}\">"
    )?;
    match form {
        "span" => write!(page, "{}", Span(value))?,
        "bytes" => write!(page, "{}", Bytes(value))?,
        _ => write!(page, "{}", Count(value))?,
    }
    write!(page, "</b><small>{}</small></div>", Html(note))
}

fn files(page: &mut String, files: &Files) -> fmt::Result {
    match files {
        Files::Ready { disk, kind, size } => write!(
            page,
            "<section class=\"card files\"><div><h2>Files</h2><p class=\"dim\">{} &middot; {kind} &middot; {}</p></div>\
             <div><a class=\"button\" href=\"/files/?list\">List</a> \
             <a class=\"button main\" href=\"/files/\">Open the site</a></div></section>",
            Html(disk),
            Bytes(*size)
        ),
        Files::Unavailable { reason } => write!(
            page,
            "<section class=\"card files\"><div><h2>Files</h2><p class=\"bad\">Not served: {}.</p></div></section>",
            Html(reason)
        ),
    }
}

/// The devices on the vDPA bus, with what management tells about each of them as JSON.
fn vdpa(page: &mut String, devices: &[VdpaDevice]) -> fmt::Result {
    page.write_str(
        "<h2>vDPA bus</h2><section class=\"card\"><div class=\"scroll\"><table class=\"queues\"><thead>\
         <tr><th>Device<th>Type<th>Made by<th>Used by<th class=\"n\">Queues<th>JSON</thead><tbody>",
    )?;
    for VdpaDevice { report, driver } in devices {
        let name = Segment(&report.name);
        write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td class=\"n\">{}<td><a href=\"{ROOT}/dev/{name}\">device</a> \
             <a href=\"{ROOT}/dev/{name}/config\">configuration</a>",
            Html(&report.name),
            Html(&report.type_name()),
            Html(&report.manager.to_string()),
            Html(driver.as_deref().unwrap_or("nobody")),
            report.max_queues
        )?;
    }
    write!(
        page,
        "</tbody></table></div><p class=\"dim\">All of them as JSON: <a href=\"{ROOT}/mgmtdev\">what can make devices</a>, \
         <a href=\"{ROOT}/dev\">devices</a>, <a href=\"{ROOT}/dev/config\">configurations</a>.</p></section>"
    )
}

fn card(page: &mut String, chain: &Chain<'_>) -> fmt::Result {
    page.write_str("<section class=\"card\"><ol class=\"chain\">")?;
    for link in &chain.links {
        write!(page, "<li><b>{}</b>", Html(&link.device.name))?;
        if let Some(driver) = &link.device.driver {
            write!(page, "<small>{}</small>", Html(driver))?;
        }
    }
    page.write_str("</ol>")?;
    features(page, chain)?;
    for link in chain
        .links
        .iter()
        .filter(|link| !link.device.queues.is_empty())
    {
        queues(page, link)?;
    }
    facts(page, chain)?;
    page.write_str("</section>")
}

/// The facts of the leaf, and behind a fold those of the devices it stands on.
fn facts(page: &mut String, chain: &Chain<'_>) -> fmt::Result {
    let Some((leaf, above)) = chain.links.split_last() else {
        return Ok(());
    };
    fact_list(page, leaf)?;
    page.write_str("<details><summary>How it is attached</summary>")?;
    for link in above {
        write!(page, "<h3>{}</h3>", Html(&link.device.name))?;
        fact_list(page, link)?;
    }
    page.write_str("</details>")
}

fn fact_list(page: &mut String, link: &Link<'_>) -> fmt::Result {
    page.write_str("<dl>")?;
    for (position, (name, value)) in link.device.facts.iter().enumerate() {
        if value.is_empty() {
            continue;
        }
        write!(
            page,
            "<div><dt>{}<dd data-v=\"{}.facts.{position}.value\" data-f=\"text\">{}</div>",
            Html(name),
            link.path,
            Html(value)
        )?;
    }
    page.write_str("</dl>")
}

/// What was negotiated, as the device nearest to the leaf says.
fn features(page: &mut String, chain: &Chain<'_>) -> fmt::Result {
    let mut features = chain.links.iter().rev().map(|link| &link.device.features);
    let Some(features) = features.find(|features| !features.is_empty()) else {
        return Ok(());
    };
    page.write_str("<h3>Negotiated</h3><ul class=\"chips\">")?;
    for feature in features {
        write!(page, "<li>{}", Html(feature))?;
    }
    page.write_str("</ul>")
}

fn queues(page: &mut String, link: &Link<'_>) -> fmt::Result {
    page.write_str(
        "<div class=\"scroll\"><table class=\"queues\"><thead><tr><th>Queue<th class=\"n\">Size<th class=\"n\">Added\
         <th class=\"n\">Used<th class=\"n\">Kicks<th class=\"n\">Suppressed<th class=\"n\">Interrupts\
         <th class=\"n\">Used per second</thead><tbody>",
    )?;
    for (position, queue) in link.device.queues.iter().enumerate() {
        queue_row(page, queue, &format!("{}.queues.{position}", link.path))?;
    }
    page.write_str("</tbody></table></div>")
}

fn queue_row(page: &mut String, queue: &QueueReport, path: &str) -> fmt::Result {
    write!(
        page,
        "<tr><td>{} <i>{}</i><td class=\"n\">{}",
        Html(queue.name),
        queue.index,
        queue.size
    )?;
    for (field, value) in [
        ("added", queue.counters.added),
        ("used", queue.counters.used),
        ("kicks", queue.counters.kicks),
        ("suppressed", queue.counters.suppressed),
        ("interrupts", queue.interrupts),
    ] {
        write!(
            page,
            "<td class=\"n\" data-v=\"{path}.{field}\" data-f=\"count\">{}",
            Count(value)
        )?;
    }
    write!(
        page,
        "<td class=\"n\" data-rate=\"{path}.used\"><svg width=\"120\" height=\"20\" aria-hidden=\"true\"><polyline/></svg><b></b>"
    )
}

fn others(page: &mut String, chains: &[&Chain<'_>]) -> fmt::Result {
    page.write_str("<section class=\"card\"><h3>Without a driver</h3><dl>")?;
    for link in chains.iter().filter_map(|chain| chain.links.last()) {
        write!(page, "<div><dt>{}<dd>", Html(&link.device.name))?;
        for (_, value) in ["id", "class name"]
            .iter()
            .filter_map(|wanted| link.device.facts.iter().find(|fact| fact.0 == *wanted))
        {
            write!(page, "{} ", Html(value))?;
        }
        page.write_str("</div>")?;
    }
    page.write_str("</dl></section>")
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
