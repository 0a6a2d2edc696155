//! What is shown of management devices, devices, configurations and queues.

use vdpa::device::Removal;
use vdpa_mgmt::{
    AttributeSet, Attributes, ConfigReport, DeviceReport, Handle, MacAddress, MgmtError, NetConfig,
    QueueKind, TypeConfig,
};

use crate::world::{BLOCK, CRYPTO, NET, World, negotiate};

#[test]
fn makers_and_parents_are_management_devices() {
    let w = World::new();
    w.run(async {
        w.open("workshop", &[BLOCK, NET]).await;
        w.add("foo", "workshop", Attributes::default())
            .await
            .unwrap();
        let found = w.plug("0000:00:04.0", NET).await;
        let managers = w.management.managers(None).await.unwrap();
        let summary: Vec<_> = managers
            .iter()
            .map(|each| (each.handle.to_string(), &each.classes[..], each.max_queues))
            .collect();
        assert_eq!(
            summary,
            [
                ("workshop".to_owned(), &[NET, BLOCK][..], 5),
                ("pci/0000:00:04.0".to_owned(), &[NET], 2),
            ]
        );
        assert_eq!(managers[1].features, virtio::F::VERSION_1.into());
        assert_eq!(managers[1].attributes, AttributeSet::empty());
        // SAFETY: the device is a simulation, whose workers the bus ends before it goes.
        let surprise = unsafe { Removal::surprise() };
        w.bus.unregister(&found, surprise).await;
        assert_eq!(w.management.managers(None).await.unwrap().len(), 1);
    });
}

#[test]
fn one_management_device_can_be_asked_for() {
    let w = World::new();
    w.run(async {
        w.open("net", &[NET]).await;
        w.plug("0000:00:04.0", NET).await;
        for (handle, expected) in [
            (Handle::named("net"), Ok(1)),
            (Handle::on_bus("pci", "0000:00:04.0"), Ok(1)),
            (Handle::named("0000:00:04.0"), Err(MgmtError::NoManager)),
            (Handle::on_bus("pci", "net"), Err(MgmtError::NoManager)),
        ] {
            let found = w.management.managers(Some(&handle)).await;
            assert_eq!(found.map(|found| found.len()), expected, "{handle}");
        }
    });
}

#[test]
fn a_device_tells_who_made_it_and_how_large_it_is() {
    let w = World::new();
    w.run(async {
        w.open("net", &[NET]).await;
        w.add("foo", "net", Attributes::default()).await.unwrap();
        w.plug("0000:00:04.0", BLOCK).await;
        let devices = w.management.devices(None).await.unwrap();
        let expected = [
            DeviceReport {
                name: "foo".into(),
                device_type: NET,
                manager: Handle::named("net"),
                vendor_id: 0xfa4e,
                max_queues: 3,
                max_queue_size: 64,
            },
            DeviceReport {
                name: devices[1].name.clone(),
                device_type: BLOCK,
                manager: Handle::on_bus("pci", "0000:00:04.0"),
                vendor_id: 0xfa4e,
                max_queues: 2,
                max_queue_size: 128,
            },
        ];
        assert_eq!(devices, expected);
        assert_eq!(
            w.management.devices(Some("foo")).await.unwrap(),
            expected[..1]
        );
        assert_eq!(
            w.management.devices(Some("bar")).await,
            Err(MgmtError::NoDevice)
        );
    });
}

#[test]
fn a_configuration_is_shown_as_far_as_the_device_offers_it() {
    let w = World::new();
    w.run(async {
        w.open("net", &[NET]).await;
        let mac = MacAddress([2, 0, 0, 0, 0, 1]);
        let all = Attributes {
            mac: Some(mac),
            mtu: Some(1400),
            ..Attributes::default()
        };
        w.add("all", "net", all).await.unwrap();
        let little = Attributes {
            mtu: Some(1400),
            device_features: Some(virtio::net::F::MTU.into()),
            ..Attributes::default()
        };
        w.add("little", "net", little).await.unwrap();
        let configs = w.management.configs(None).await.unwrap();
        let report = |fields| ConfigReport {
            fields: TypeConfig::Net(fields),
            negotiated: None,
        };
        let all = NetConfig {
            mac: Some(mac),
            status: Some(0),
            max_queue_pairs: Some(1),
            mtu: Some(1400),
        };
        let little = NetConfig {
            mtu: Some(1400),
            ..NetConfig::default()
        };
        assert_eq!(
            configs,
            [
                ("all".into(), report(all)),
                ("little".into(), report(little))
            ]
        );
    });
}

#[test]
fn features_are_shown_once_they_are_settled() {
    let w = World::new();
    w.run(async {
        w.open("net", &[NET]).await;
        let device = w.add("foo", "net", Attributes::default()).await.unwrap();
        let negotiated = async || {
            let configs = w.management.configs(Some("foo")).await.unwrap();
            configs[0].1.negotiated
        };
        assert_eq!(negotiated().await, None);
        let device = negotiate(&w, &device).await;
        assert_eq!(negotiated().await, Some(device.device_features().unwrap()));
        device.reset().await.unwrap();
        assert_eq!(negotiated().await, None);
    });
}

#[test]
fn only_network_and_block_devices_have_a_configuration_to_show() {
    let w = World::new();
    w.run(async {
        w.plug("0000:00:04.0", CRYPTO).await;
        w.plug("0000:00:05.0", BLOCK).await;
        let configs = w.management.configs(None).await.unwrap();
        assert_eq!(configs.len(), 1, "the one without is left out of a list");
        assert!(matches!(configs[0].1.fields, TypeConfig::Blk(_)));
        let refused = w.management.configs(Some("vdpa0")).await;
        assert_eq!(refused, Err(MgmtError::Unsupported));
        let missing = w.management.configs(Some("vdpa9")).await;
        assert_eq!(missing, Err(MgmtError::NoDevice));
    });
}

#[test]
fn statistics_need_negotiated_features_and_an_index_that_exists() {
    let w = World::new();
    w.run(async {
        let device = w.plug("0000:00:04.0", NET).await;
        let ask = async |queue| w.management.statistics("vdpa0", queue).await.map(drop);
        assert_eq!(ask(0).await, Err(MgmtError::Again));
        for queue in [2, 0x8000, 0x1_0000, u32::MAX] {
            assert_eq!(
                ask(queue).await,
                Err(MgmtError::NoQueue { queues: 2 }),
                "{queue}"
            );
        }
        negotiate(&w, &device).await;
        for (queue, kind) in [(0, QueueKind::Receive), (1, QueueKind::Transmit)] {
            let statistics = w
                .management
                .statistics("vdpa0", queue.into())
                .await
                .unwrap();
            assert_eq!(statistics.kind, kind);
            assert_eq!(statistics.counters, device.queue_statistics(queue).unwrap());
        }
        w.plug("0000:00:05.0", CRYPTO).await;
        let other = w.management.statistics("vdpa1", 0).await.map(drop);
        assert_eq!(other, Err(MgmtError::Unsupported));
    });
}
