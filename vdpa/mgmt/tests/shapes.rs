//! Text and JSON as iproute2's `vdpa` prints them, key by key.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use vdpa::Features;
use vdpa_mgmt::tool::{Form, Numbers, Options, Output};
use vdpa_mgmt::{
    AttributeSet, BlkConfig, ConfigReport, DeviceReport, Discard, Handle, MacAddress,
    ManagerReport, NetConfig, QueueKind, QueueStatistics, Topology, TypeConfig, WriteZeroes,
};

fn text(output: &Output) -> String {
    output.print(Options::default())
}

fn json(output: &Output) -> Value {
    let [compact, pretty] = [Form::Json, Form::PrettyJson].map(|form| {
        let options = Options {
            form,
            numbers: Numbers::Names,
        };
        let text = output.print(options);
        serde_json::from_str::<Value>(&text).unwrap()
    });
    assert_eq!(compact, pretty);
    compact
}

fn managers() -> Output {
    let features =
        Features::from_bits(1 << 5 | 1 << 15 | 1 << 28 | 1 << 29 | 1 << 32 | 1 << 44 | 1 << 64);
    Output::Managers(vec![
        ManagerReport {
            handle: Handle::on_bus("pci", "0000:65:00.2"),
            classes: vec![1],
            max_queues: 17,
            features,
            attributes: AttributeSet::empty(),
        },
        ManagerReport {
            handle: Handle::named("vdpasim"),
            classes: vec![1, 2, 26],
            max_queues: 3,
            features: Features::from_bits(1 << 5),
            attributes: AttributeSet::empty(),
        },
    ])
}

#[test]
fn management_devices() {
    assert_eq!(
        text(&managers()),
        "pci/0000:65:00.2: \n\
        \x20 supported_classes net\n\
        \x20 max_supported_vqs 17\n\
        \x20 dev_features MAC MRG_RXBUF RING_INDIRECT_DESC RING_EVENT_IDX VERSION_1 bit_44 RSS_CONTEXT\n\
        vdpasim: \n\
        \x20 supported_classes net block < unknown class >\n\
        \x20 max_supported_vqs 3\n\
        \x20 dev_features bit_5\n"
    );
    assert_eq!(
        json(&managers()),
        json!({"mgmtdev": {
            "pci/0000:65:00.2": {
                "supported_classes": ["net"],
                "max_supported_vqs": 17,
                "dev_features": ["MAC", "MRG_RXBUF", "RING_INDIRECT_DESC", "RING_EVENT_IDX", "VERSION_1", "bit_44", "RSS_CONTEXT"],
            },
            "vdpasim": {
                "supported_classes": ["net", "block", "< unknown class >"],
                "max_supported_vqs": 3,
                "dev_features": ["bit_5"],
            },
        }})
    );
}

#[test]
fn numbers_stand_for_names_when_asked() {
    let options = Options {
        form: Form::Json,
        numbers: Numbers::Raw,
    };
    let value: Value = serde_json::from_str(&managers().print(options)).unwrap();
    assert_eq!(
        value["mgmtdev"]["vdpasim"]["supported_classes"],
        json!([1, 2, 26])
    );
    assert_eq!(
        value["mgmtdev"]["pci/0000:65:00.2"]["dev_features"][0],
        json!("bit_5")
    );
}

#[test]
fn devices() {
    let device = |name: &str, device_type| DeviceReport {
        name: name.into(),
        device_type,
        manager: Handle::named("vdpasim_net"),
        vendor_id: 0x1af4,
        max_queues: 3,
        max_queue_size: 256,
    };
    let output = Output::Devices(vec![
        device("vdpa0", 1),
        device("foo", 2),
        device("bar", 26),
    ]);
    assert_eq!(
        text(&output),
        "vdpa0: type network mgmtdev vdpasim_net vendor_id 6900 max_vqs 3 max_vq_size 256\n\
        foo: type block mgmtdev vdpasim_net vendor_id 6900 max_vqs 3 max_vq_size 256\n\
        bar: type <unknown type> mgmtdev vdpasim_net vendor_id 6900 max_vqs 3 max_vq_size 256\n"
    );
    let value = json(&output);
    assert_eq!(
        value["dev"]["vdpa0"],
        json!({
            "type": "network", "mgmtdev": "vdpasim_net", "vendor_id": 6900, "max_vqs": 3, "max_vq_size": 256
        })
    );
    assert_eq!(value["dev"]["foo"]["type"], "block");
    assert_eq!(value["dev"].as_object().unwrap().len(), 3);
}

#[test]
fn configuration_of_a_network_device() {
    let net = NetConfig {
        mac: Some(MacAddress([0, 0x11, 0x22, 0x33, 0x44, 0x55])),
        status: Some(1),
        max_queue_pairs: Some(8),
        mtu: Some(1500),
    };
    let output = Output::Configs(vec![(
        "vdpa0".into(),
        ConfigReport {
            fields: TypeConfig::Net(net),
            negotiated: Some(Features::from_bits(1 << 5 | 1 << 22 | 1 << 33 | 1 << 127)),
        },
    )]);
    assert_eq!(
        text(&output),
        "vdpa0: mac 00:11:22:33:44:55 link up link_announce false max_vq_pairs 8 mtu 1500 \n\
        \x20 negotiated_features MAC MQ ACCESS_PLATFORM bit_127\n"
    );
    assert_eq!(
        json(&output),
        json!({"config": {"vdpa0": {
            "mac": "00:11:22:33:44:55",
            "link ": "up",
            "link_announce ": false,
            "max_vq_pairs": 8,
            "mtu": 1500,
            "negotiated_features": ["MAC", "MQ", "ACCESS_PLATFORM", "bit_127"],
        }}})
    );
}

#[test]
fn what_a_device_lacks_is_left_out() {
    let net = NetConfig {
        status: Some(2),
        ..NetConfig::default()
    };
    let output = Output::Configs(vec![(
        "vdpa0".into(),
        ConfigReport {
            fields: TypeConfig::Net(net),
            negotiated: None,
        },
    )]);
    assert_eq!(text(&output), "vdpa0: link down link_announce true \n");
    assert_eq!(
        json(&output),
        json!({"config": {"vdpa0": {"link ": "down", "link_announce ": true}}})
    );
}

#[test]
fn configuration_of_a_block_device() {
    let blk = BlkConfig {
        capacity: 131_072,
        size_max: Some(65_536),
        seg_max: Some(126),
        block_size: Some(512),
        topology: Some(Topology {
            physical_block_exponent: 3,
            alignment_offset: 0,
            min_io_size: 8,
            opt_io_size: 64,
        }),
        queues: Some(2),
        discard: Some(Discard {
            max_sectors: 1024,
            max_segments: 16,
            sector_alignment: 8,
        }),
        write_zeroes: Some(WriteZeroes {
            max_sectors: 2048,
            max_segments: 32,
        }),
        read_only: false,
        flush: true,
    };
    let report = |blk| {
        Output::Configs(vec![(
            "disk".into(),
            ConfigReport {
                fields: TypeConfig::Blk(blk),
                negotiated: Some(Features::from_bits(1 << 9)),
            },
        )])
    };
    assert_eq!(
        text(&report(blk)),
        "disk: capacity 131072 size_max 65536 seg_max 126 blk_size 512 phys_blk_exp 3 align_offset 0 min_io_size 8 \
        opt_io_size 64 num_queues 2 max_discard_sec 1024 max_discard_seg 16 discard_sec_align 8 \
        max_write_zeroes_sec 2048 max_write_zeroes_seg 32 read_only false flush true \n\
        \x20 negotiated_features FLUSH\n"
    );
    assert_eq!(
        json(&report(blk))["config"]["disk"],
        json!({
            "capacity": 131_072, "size_max": 65_536, "seg_max": 126, "blk_size": 512,
            "phys_blk_exp": 3, "align_offset": 0, "min_io_size": 8, "opt_io_size": 64,
            "num_queues": 2, "max_discard_sec": 1024, "max_discard_seg": 16, "discard_sec_align": 8,
            "max_write_zeroes_sec": 2048, "max_write_zeroes_seg": 32,
            "read_only": false, "flush": true, "negotiated_features": ["FLUSH"],
        })
    );
    let plain = BlkConfig {
        capacity: 8,
        read_only: true,
        ..BlkConfig::default()
    };
    assert_eq!(
        json(&report(plain))["config"]["disk"],
        json!({"capacity": 8, "read_only": true, "flush": false, "negotiated_features": ["FLUSH"]})
    );
}

#[test]
fn statistics() {
    for (kind, queue_type) in [
        (QueueKind::Receive, "rx"),
        (QueueKind::Transmit, "tx"),
        (QueueKind::Control, "control_vq"),
        (QueueKind::Request, "request"),
    ] {
        let statistics = QueueStatistics {
            kind,
            counters: vec![("received_desc", u64::MAX), ("completed_desc", 7)],
        };
        let output = Output::Statistics("vdpa0".into(), statistics);
        assert_eq!(
            text(&output),
            format!(
                "vdpa0: queue_type {queue_type} received_desc 18446744073709551615 completed_desc 7\n"
            )
        );
        assert_eq!(
            json(&output),
            json!({"vstats": {"vdpa0": {
                "queue_type": queue_type, "received_desc": u64::MAX, "completed_desc": 7
            }}})
        );
    }
}

#[test]
fn a_command_without_a_result_prints_nothing_or_an_empty_object() {
    assert_eq!(text(&Output::Done), "");
    assert_eq!(json(&Output::Done), json!({}));
}

#[test]
fn a_device_that_did_not_stop_is_told() {
    let output = Output::Leaked {
        device: "foo".into(),
        queues: 2,
    };
    assert_eq!(
        text(&output),
        "foo: did not stop; the memory of 2 queues is not used again\n"
    );
    assert_eq!(json(&output), json!({"leaked": {"foo": {"queues": 2}}}));
}

#[test]
fn json_has_the_members_in_the_order_of_the_program() {
    let device = Output::Devices(vec![DeviceReport {
        name: "vdpa0".into(),
        device_type: 1,
        manager: Handle::named("vdpasim_net"),
        vendor_id: 0,
        max_queues: 3,
        max_queue_size: 256,
    }]);
    let config = Output::Configs(vec![(
        "vdpa0".into(),
        ConfigReport {
            fields: TypeConfig::Net(NetConfig {
                mac: Some(MacAddress([0x52, 0x54, 0, 0, 0, 1])),
                status: Some(1),
                max_queue_pairs: Some(2),
                mtu: Some(1500),
            }),
            negotiated: Some(Features::EMPTY),
        },
    )]);
    let json = Options {
        form: Form::Json,
        numbers: Numbers::Names,
    };
    assert_eq!(
        device.print(json),
        "{\"dev\":{\"vdpa0\":{\"type\":\"network\",\"mgmtdev\":\"vdpasim_net\",\"vendor_id\":0,\
         \"max_vqs\":3,\"max_vq_size\":256}}}\n"
    );
    assert_eq!(
        config.print(json),
        "{\"config\":{\"vdpa0\":{\"mac\":\"52:54:00:00:00:01\",\"link \":\"up\",\
         \"link_announce \":false,\"max_vq_pairs\":2,\"mtu\":1500,\"negotiated_features\":[]}}}\n"
    );
    assert_eq!(
        config.print(Options::default()),
        "vdpa0: mac 52:54:00:00:00:01 link up link_announce false max_vq_pairs 2 mtu 1500 \n  \
         negotiated_features\n"
    );
    let pretty = Options {
        form: Form::PrettyJson,
        ..json
    };
    assert_eq!(Output::Done.print(pretty), "{}\n");
}
