//! The management devices of the simulators.

use std::sync::Arc;

use vdpa::Features;
use vdpa::Platform;
use vdpa_mgmt::{
    Attributes, BlkConfig, CreateError, MacAddress, MgmtError, NetConfig, QueueKind, SimBlks,
    SimNets, TypeConfig,
};

use crate::world::{World, negotiate};

const MIB: u64 = 1 << 20;

/// What two disks of 64 MiB together need besides.
const BESIDES: u64 = 160 << 10;

/// A world with both, and 64 MiB for disks.
async fn with_simulators(w: &World) {
    let platform = Arc::clone(&w.platform) as Arc<dyn Platform>;
    let nets = SimNets::new(&w.root, &platform);
    w.management.register(nets).await.unwrap();
    w.platform.leave_memory(64 * MIB + BESIDES);
    let disks = SimBlks::new(&w.root, &platform);
    w.management.register(disks).await.unwrap();
}

async fn net_config(w: &World, name: &str) -> NetConfig {
    let configs = w.management.configs(Some(name)).await.unwrap();
    match configs[0].1.fields {
        TypeConfig::Net(net) => net,
        TypeConfig::Blk(_) => panic!("{name} is a disk"),
    }
}

async fn blk_config(w: &World, name: &str) -> BlkConfig {
    let configs = w.management.configs(Some(name)).await.unwrap();
    match configs[0].1.fields {
        TypeConfig::Blk(blk) => blk,
        TypeConfig::Net(_) => panic!("{name} is a card"),
    }
}

fn none() -> Attributes {
    Attributes::default()
}

#[test]
fn a_card_has_what_was_asked_for() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        let mac = MacAddress([0x52, 0x54, 0, 1, 2, 3]);
        let attributes = Attributes {
            mac: Some(mac),
            mtu: Some(9000),
            max_queue_pairs: Some(4),
            ..none()
        };
        w.add("card", "vdpasim_net", attributes).await.unwrap();
        let config = net_config(&w, "card").await;
        assert_eq!(config.mac, Some(mac));
        assert_eq!(config.mtu, Some(9000));
        assert_eq!(config.max_queue_pairs, Some(4));
        let devices = w.management.devices(Some("card")).await.unwrap();
        assert_eq!(devices[0].max_queues, 9, "4 pairs and the control queue");
        let other = MacAddress([2, 0, 0, 0, 0, 9]);
        w.management.set_mac("card", other).await.unwrap();
        assert_eq!(net_config(&w, "card").await.mac, Some(other));
    });
}

#[test]
fn cards_have_addresses_of_their_own() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        w.add("a", "vdpasim_net", none()).await.unwrap();
        w.add("b", "vdpasim_net", none()).await.unwrap();
        let (a, b) = (net_config(&w, "a").await, net_config(&w, "b").await);
        assert_ne!(a.mac, b.mac);
        assert!(a.mac.unwrap().is_unicast() && b.mac.unwrap().is_unicast());
    });
}

#[test]
fn a_card_offers_only_the_features_it_was_given() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        let given = Features::from(virtio::net::F::MAC)
            | (virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM).into();
        let attributes = |features| Attributes {
            device_features: Some(features),
            ..none()
        };
        let device = w
            .add("card", "vdpasim_net", attributes(given))
            .await
            .unwrap();
        assert_eq!(device.device_features(), Ok(given));
        let refused = w
            .add("bad", "vdpasim_net", attributes(virtio::net::F::MAC.into()))
            .await;
        let expected = CreateError::Simulator(vdpa_sim::CreateError::BadFeatures);
        assert_eq!(refused.map(drop), Err(MgmtError::Create(expected)));
    });
}

#[test]
fn a_peer_must_be_a_card_of_the_same_maker() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        let to = |peer: &str| Attributes {
            peer: Some(peer.to_owned()),
            ..none()
        };
        w.add("a", "vdpasim_net", none()).await.unwrap();
        w.add("disk", "vdpasim_blk", none()).await.unwrap();
        w.add("b", "vdpasim_net", to("a")).await.unwrap();
        let no_peer = Err(MgmtError::Create(CreateError::NoPeer));
        for peer in ["nobody", "disk", "c"] {
            let refused = w.add("c", "vdpasim_net", to(peer)).await;
            assert_eq!(refused.map(drop), no_peer, "{peer}");
        }
        w.management.delete("a").await.unwrap();
        let gone = w.add("c", "vdpasim_net", to("a")).await;
        assert_eq!(gone.map(drop), no_peer);
    });
}

#[test]
fn a_disk_has_what_was_asked_for() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        let attributes = Attributes {
            capacity: Some(8 * MIB / 512),
            block_size: Some(4096),
            queues: Some(4),
            ..none()
        };
        w.add("disk", "vdpasim_blk", attributes).await.unwrap();
        let config = blk_config(&w, "disk").await;
        assert_eq!(config.capacity, 8 * MIB / 512);
        assert_eq!(config.block_size, Some(4096));
        assert_eq!(config.queues, Some(4));
        assert!(!config.read_only);
        let refused = Attributes {
            block_size: Some(1000),
            ..none()
        };
        let refused = w.add("bad", "vdpasim_blk", refused).await.map(drop);
        let expected = CreateError::Simulator(vdpa_sim::CreateError::BadBlockSize);
        assert_eq!(refused, Err(MgmtError::Create(expected)));
    });
}

#[test]
fn disks_share_a_budget_that_a_deleted_one_gives_back() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        let of = |mib: u64| Attributes {
            capacity: Some(mib * MIB / 512),
            ..none()
        };
        let left = 64 * MIB + BESIDES;
        let too_much = Err(MgmtError::Create(CreateError::OutOfMemory { left }));
        assert!(
            CreateError::OutOfMemory { left }
                .to_string()
                .ends_with(", 65696 KiB are left")
        );
        let endless = Attributes {
            capacity: Some(u64::MAX),
            ..none()
        };
        assert_eq!(w.add("a", "vdpasim_blk", endless).await.map(drop), too_much);
        w.add("a", "vdpasim_blk", of(40)).await.unwrap();
        // What a report about the first one takes is kept.
        let left = left - (10 << 10);
        let too_much = Err(MgmtError::Create(CreateError::OutOfMemory { left }));
        assert_eq!(w.add("b", "vdpasim_blk", of(25)).await.map(drop), too_much);
        w.add("b", "vdpasim_blk", of(24)).await.unwrap();
        w.management.delete("a").await.unwrap();
        w.add("c", "vdpasim_blk", of(40)).await.unwrap();
    });
}

#[test]
fn cards_draw_on_the_same_memory_as_disks() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        let pairs = |pairs: u16| Attributes {
            max_queue_pairs: Some(pairs),
            ..none()
        };
        let left = 100 << 10;
        w.platform.leave_memory(left);
        let refused = Err(MgmtError::Create(CreateError::OutOfMemory { left }));
        assert_eq!(w.add("a", "vdpasim_net", pairs(8)).await.map(drop), refused);
        let disk = w.add("a", "vdpasim_blk", none()).await;
        assert_eq!(disk.map(drop), refused);
        w.add("a", "vdpasim_net", pairs(1)).await.unwrap();
        w.platform.leave_memory(0);
        let refused = Err(MgmtError::Create(CreateError::OutOfMemory { left: 0 }));
        assert_eq!(w.add("b", "vdpasim_net", none()).await.map(drop), refused);
    });
}

#[test]
fn the_last_device_takes_the_makers_node_with_it() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        let names = || -> Vec<String> {
            let children = w.root.children();
            children
                .iter()
                .map(|child| child.name().to_owned())
                .collect()
        };
        assert!(names().is_empty());
        w.add("a", "vdpasim_net", none()).await.unwrap();
        w.add("b", "vdpasim_net", none()).await.unwrap();
        assert_eq!(names(), ["vdpasim_net"]);
        w.management.delete("a").await.unwrap();
        assert_eq!(names(), ["vdpasim_net"]);
        w.management.delete("b").await.unwrap();
        assert!(names().is_empty());
    });
}

#[test]
fn every_queue_of_a_card_tells_what_it_is_for() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        let attributes = Attributes {
            max_queue_pairs: Some(2),
            ..none()
        };
        let card = w.add("card", "vdpasim_net", attributes).await.unwrap();
        w.add("disk", "vdpasim_blk", none()).await.unwrap();
        let asked = w.management.statistics("card", 0).await.map(drop);
        assert_eq!(asked, Err(MgmtError::Again));
        negotiate(&w, &card).await;
        use QueueKind::{Control, Receive, Transmit};
        for (queue, kind) in [Receive, Transmit, Receive, Transmit, Control]
            .into_iter()
            .enumerate()
        {
            let queue = u32::try_from(queue).unwrap();
            let statistics = w.management.statistics("card", queue).await.unwrap();
            assert_eq!(statistics.kind, kind, "{queue}");
            assert!(!statistics.counters.is_empty(), "{queue}");
        }
        let disk = w.bus.devices().pop().unwrap();
        negotiate(&w, &disk).await;
        let statistics = w.management.statistics("disk", 0).await.unwrap();
        assert_eq!(statistics.kind, QueueKind::Request);
        assert!(!statistics.counters.is_empty());
    });
}

#[test]
fn hundreds_of_simulators_come_and_go() {
    let w = World::new();
    w.run(async {
        with_simulators(&w).await;
        let small = Attributes {
            capacity: Some(8),
            ..none()
        };
        for number in 0..256 {
            w.add(&format!("net{number}"), "vdpasim_net", none())
                .await
                .unwrap();
            w.add(&format!("blk{number}"), "vdpasim_blk", small.clone())
                .await
                .unwrap();
        }
        assert_eq!(w.platform.tasks().len(), 512, "a worker each");
        for number in 0..256 {
            w.management.delete(&format!("net{number}")).await.unwrap();
            w.management.delete(&format!("blk{number}")).await.unwrap();
        }
        assert!(w.platform.tasks().is_empty());
        assert!(w.root.children().is_empty());
    });
    w.bus.close().unwrap();
}
