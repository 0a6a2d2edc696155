//! The front page of a sample machine.

use super::*;
use crate::status::{Http, Memory};
use alloc::vec;
use serde_json::{Value, json};
use vdpa_mgmt::{DeviceReport, Handle};
use virtq::Snapshot;

fn device(name: &str, driver: Option<&str>, children: Vec<NodeReport>) -> NodeReport {
    NodeReport {
        name: name.into(),
        driver: driver.map(Into::into),
        facts: Vec::new(),
        features: Vec::new(),
        queues: Vec::new(),
        children,
    }
}

fn queue(index: u16, name: &'static str, used: u64) -> QueueReport {
    QueueReport {
        index,
        name,
        size: 256,
        counters: Snapshot {
            added: used + 256,
            used,
            kicks: used / 9,
            suppressed: used / 3,
        },
        interrupts: used / 7,
    }
}

fn chain(function: &str, number: u32, driver: &str, leaf: &str) -> NodeReport {
    let leaf = device(leaf, None, Vec::new());
    let virtio = device(&format!("virtio{number}"), Some(driver), vec![leaf]);
    let vdpa = device(&format!("vdpa{number}"), Some("virtio_vdpa"), vec![virtio]);
    device(function, Some("vp_vdpa"), vec![vdpa])
}

fn status() -> Status {
    let mut net = chain("pci0000:00:02.0", 0, "net", "net0");
    net.facts = vec![("ids", "1af4:1000".into()), ("vectors", "3 MSI-X".into())];
    net.children[0].children[0].facts =
        vec![("mac", "52:54:00:12:34:56".into()), ("mtu", "1500".into())];
    net.children[0].children[0].features = [
        "CSUM",
        "MAC",
        "MRG_RXBUF",
        "STATUS",
        "INDIRECT_DESC",
        "EVENT_IDX",
        "VERSION_1",
    ]
    .map(Into::into)
    .into();
    net.children[0].children[0].queues =
        vec![queue(0, "receive", 48_123), queue(1, "transmit", 51_877)];
    let mut blk = chain("pci0000:00:03.0", 1, "blk", "blk0");
    blk.children[0].children[0].facts = vec![("capacity", "512 MiB".into())];
    blk.children[0].children[0].features = [
        "SEG_MAX",
        "BLK_SIZE",
        "FLUSH",
        "INDIRECT_DESC",
        "EVENT_IDX",
        "VERSION_1",
    ]
    .map(Into::into)
    .into();
    blk.children[0].children[0].queues = vec![queue(0, "request", 1_204)];
    let mut bridge = device("pci0000:00:00.0", None, Vec::new());
    bridge.facts = vec![
        ("id", "8086:29c0".into()),
        ("class name", "host bridge".into()),
    ];
    Status {
        uptime_ms: 73_512,
        memory: Memory {
            used: 9 << 20,
            total: 256 << 20,
            left: 64 << 20,
        },
        ipv4: Some(Address {
            address: "10.0.2.15/24".into(),
            gateway: Some("10.0.2.2".into()),
        }),
        ipv6: Some(Address {
            address: "fec0::5054:ff:fe12:3456/64".into(),
            gateway: Some("fe80::2".into()),
        }),
        files: Files::Ready {
            disk: "blk0".into(),
            kind: "FAT32",
            size: 512 << 20,
        },
        http: Http {
            open: 3,
            limit: 48,
            requests: 12_345,
            sent: 1_400_000_000,
        },
        vdpa: vec![VdpaDevice {
            report: DeviceReport {
                name: "<vdpa0>".into(),
                device_type: 1,
                manager: Handle::on_bus("pci", "0000:00:02.0"),
                vendor_id: 0x1af4,
                max_queues: 3,
                max_queue_size: 256,
            },
            driver: Some("virtio_vdpa".into()),
        }],
        devices: vec![bridge, net, blk],
    }
}

#[test]
fn the_page_shows_all_addresses() {
    let page = front(&status());
    for part in ["10.0.2.15/24", "fec0::5054:ff:fe12:3456/64", "fe80::2"] {
        assert!(page.contains(part), "{part}");
    }
    let none = Status {
        ipv4: None,
        ipv6: None,
        ..status()
    };
    assert!(!front(&none).contains("IPv"));
}

#[test]
fn the_page_shows_the_whole_chain_and_what_drives_it() {
    let page = front(&status());
    let mut rest = page.as_str();
    for part in [
        "pci0000:00:02.0",
        "vp_vdpa",
        "vdpa0",
        "virtio_vdpa",
        "virtio0",
        "net0",
        "MRG_RXBUF",
        "transmit",
    ] {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part} is missing or out of order"));
        rest = &rest[at..];
    }
}

#[test]
fn every_live_number_is_in_the_json() {
    let status = status();
    let json = serde_json::to_value(&status).unwrap();
    let page = front(&status);
    let paths: Vec<_> = ["data-v=\"", "data-rate=\""]
        .iter()
        .flat_map(|mark| page.split(mark).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(paths.len() > 20);
    for path in paths {
        let value = path.split('.').try_fold(&json, |value, step| match value {
            Value::Array(values) => values.get(step.parse::<usize>().ok()?),
            other => other.get(step),
        });
        assert!(
            value.is_some_and(|value| value.is_u64() || value.is_string()),
            "{path}"
        );
    }
}

#[test]
fn a_device_is_told_with_the_keys_of_the_tool() {
    let json = serde_json::to_value(status()).unwrap();
    let expected = json!({
        "name": "<vdpa0>",
        "type": "network",
        "mgmtdev": "pci/0000:00:02.0",
        "vendor_id": 0x1af4,
        "max_vqs": 3,
        "max_vq_size": 256,
        "driver": "virtio_vdpa",
    });
    assert_eq!(json["vdpa"], json!([expected]));
    let queue = json!({
        "index": 0, "name": "request", "size": 256, "added": 1460, "used": 1204, "kicks": 133,
        "suppressed": 401, "interrupts": 172,
    });
    let blk = &json["devices"][2]["children"][0]["children"][0];
    assert_eq!(blk["queues"], json!([queue]));
    assert_eq!(
        blk["facts"],
        json!([{"name": "capacity", "value": "512 MiB"}])
    );
}

#[test]
fn devices_of_the_vdpa_bus_lead_to_their_json() {
    let page = front(&status());
    let section = page.split("<h2>vDPA bus</h2>").nth(1).unwrap();
    let section = section.split("</section>").next().unwrap();
    for part in [
        "&lt;vdpa0&gt;",
        "pci/0000:00:02.0",
        "virtio_vdpa",
        "href=\"/api/vdpa/dev/%3Cvdpa0%3E\"",
        "href=\"/api/vdpa/dev/%3Cvdpa0%3E/config\"",
        "href=\"/api/vdpa/mgmtdev\"",
        "href=\"/api/vdpa/dev/config\"",
    ] {
        assert!(section.contains(part), "{part} is not in {section}");
    }
}

#[test]
fn a_device_nobody_drives_is_named() {
    let page = front(&status());
    let others = page.split("Without a driver").nth(1).unwrap();
    assert!(others.contains("pci0000:00:00.0") && others.contains("8086:29c0 host bridge"));
}

#[test]
fn a_missing_disk_is_said() {
    let mut status = status();
    status.files = Files::Unavailable {
        reason: "no disk <here>".into(),
    };
    let page = front(&status);
    assert!(page.contains("Not served: no disk &lt;here&gt;."));
    assert!(!page.contains("href=\"/files/\""));
}
