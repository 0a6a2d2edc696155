//! Making devices, and the rules for it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use vdpa::Features;
use vdpa_mgmt::{AttributeSet, Attributes, CreateError, MacAddress, MgmtError};

use crate::world::{BLOCK, NET, Onlooker, World};

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);

fn none() -> Attributes {
    Attributes::default()
}

#[test]
fn a_device_is_configured_before_anybody_sees_it() {
    let w = World::new();
    w.run(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let onlooker = Arc::new(Onlooker(Arc::clone(&seen)));
        w.bus.add_driver(onlooker).await.unwrap();
        w.open("net", &[NET]).await;
        let attributes = Attributes {
            mac: Some(MAC),
            mtu: Some(9000),
            ..none()
        };
        let device = w.add("foo", "net", attributes).await.unwrap();
        assert_eq!(device.node().path(), "net -> foo");
        let mut expected = [0x52, 0x54, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0];
        expected[10..].copy_from_slice(&9000_u16.to_le_bytes());
        assert_eq!(*seen.lock().unwrap(), [("foo".to_owned(), expected)]);
    });
}

#[test]
fn what_the_user_wants_reaches_the_management_device() {
    let w = World::new();
    w.run(async {
        let workshop = w.open("net", &[NET]).await;
        let attributes = Attributes {
            mac: Some(MAC),
            max_queue_pairs: Some(2),
            ..none()
        };
        w.add("foo", "net", attributes.clone()).await.unwrap();
        let made = workshop.made.lock().unwrap();
        assert_eq!((&*made[0].0, &made[0].1), ("foo", &attributes));
    });
}

#[test]
fn a_name_is_there_once() {
    let w = World::new();
    w.run(async {
        w.open("net", &[NET]).await;
        w.plug("0000:00:04.0", NET).await;
        let exists = Err(MgmtError::Exists);
        assert_eq!(w.add("vdpa0", "net", none()).await.map(drop), exists);
        w.add("foo", "net", none()).await.unwrap();
        assert_eq!(w.add("foo", "net", none()).await.map(drop), exists);
        assert_eq!(w.bus.devices().len(), 2);
    });
}

#[test]
fn of_two_that_want_a_name_at_once_one_gets_it() {
    let w = World::new();
    w.run(async {
        let workshop = w.open("net", &[NET]).await;
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        for _ in 0..2 {
            let (management, outcomes) = (Arc::clone(&w.management), Arc::clone(&outcomes));
            let task = async move {
                let manager = "net".parse().unwrap();
                let added = management
                    .add("foo", &manager, &Attributes::default())
                    .await;
                outcomes.lock().unwrap().push(added.map(drop));
            };
            vdpa::Platform::spawn(&*w.platform, "adder", Box::pin(task));
        }
        w.platform.run_until_stalled();
        let mut outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
        outcomes.sort_by_key(Result::is_err);
        assert_eq!(outcomes, [Ok(()), Err(MgmtError::Exists)]);
        let made = workshop.made.lock().unwrap();
        assert_eq!(made.len(), 1, "the second is not even made");
    });
}

#[test]
fn a_device_that_comes_by_itself_passes_over_names_that_are_taken() {
    let w = World::new();
    w.run(async {
        w.open("net", &[NET]).await;
        w.add("vdpa1", "net", none()).await.unwrap();
        w.add("vdpa2", "net", none()).await.unwrap();
        let found = w.plug("0000:00:04.0", NET).await;
        let name = found.node().name();
        assert!(
            name.starts_with("vdpa") && !["vdpa1", "vdpa2"].contains(&name),
            "{name}"
        );
    });
}

#[test]
fn rules_are_kept_before_anything_is_made() {
    let w = World::new();
    w.run(async {
        let net = w.open("net", &[NET]).await;
        let blk = w.open("blk", &[BLOCK]).await;
        let both = w.open("both", &[NET, BLOCK]).await;
        let bits = |bits| Some(Features::from_bits(bits));
        let with_features = |features, rest| Attributes {
            device_features: features,
            ..rest
        };
        let mtu = |mtu| Attributes {
            mtu: Some(mtu),
            ..none()
        };
        let mac = |bytes| Attributes {
            mac: Some(MacAddress(bytes)),
            ..none()
        };
        let pairs = |pairs| Attributes {
            max_queue_pairs: Some(pairs),
            ..none()
        };
        let capacity = Attributes {
            capacity: Some(8),
            ..none()
        };
        let block_size = Attributes {
            block_size: Some(512),
            ..none()
        };
        for (name, manager, attributes, expected) in [
            ("", "net", none(), MgmtError::BadName),
            ("a b", "net", none(), MgmtError::BadName),
            ("a/b", "net", none(), MgmtError::BadName),
            ("\"a\"", "net", none(), MgmtError::BadName),
            (&"n".repeat(64), "net", none(), MgmtError::BadName),
            ("foo", "nobody", none(), MgmtError::NoManager),
            ("foo", "pci/net", none(), MgmtError::NoManager),
            ("foo", "net", pairs(0), MgmtError::NoQueuePairs),
            ("foo", "net", pairs(3), MgmtError::TooManyQueues(5)),
            ("foo", "net", mtu(67), MgmtError::MtuTooSmall),
            ("foo", "net", mac([0; 6]), MgmtError::NotUnicast),
            ("foo", "net", mac([1, 0, 0, 0, 0, 1]), MgmtError::NotUnicast),
            (
                "foo",
                "net",
                with_features(
                    bits(1 << 5),
                    Attributes {
                        mac: Some(MAC),
                        ..pairs(2)
                    },
                ),
                MgmtError::MissingFeatures(Features::from_bits(1 << 22)),
            ),
            (
                "foo",
                "net",
                with_features(
                    bits(0),
                    Attributes {
                        mac: Some(MAC),
                        ..mtu(1500)
                    },
                ),
                MgmtError::MissingFeatures(Features::from_bits(1 << 5 | 1 << 3)),
            ),
            (
                "foo",
                "net",
                with_features(bits(1 << 5 | 1 << 7), mac(MAC.0)),
                MgmtError::UnknownFeatures(Features::from_bits(1 << 7)),
            ),
            (
                "foo",
                "net",
                capacity.clone(),
                MgmtError::WrongClass(AttributeSet::CAPACITY),
            ),
            (
                "foo",
                "blk",
                mtu(1500),
                MgmtError::WrongClass(AttributeSet::MTU),
            ),
            (
                "foo",
                "blk",
                Attributes {
                    block_size: Some(512),
                    ..capacity
                },
                MgmtError::UnsupportedAttributes(AttributeSet::BLOCK_SIZE),
            ),
            (
                "foo",
                "both",
                with_features(bits(1 << 5 | 1 << 32), none()),
                MgmtError::Ambiguous(Features::from_bits(1 << 5)),
            ),
            (
                "foo",
                "both",
                block_size,
                MgmtError::UnsupportedAttributes(AttributeSet::BLOCK_SIZE),
            ),
        ] {
            let refused = w.add(name, manager, attributes.clone()).await.map(drop);
            assert_eq!(refused, Err(expected), "{name:?} {manager} {attributes:?}");
        }
        for workshop in [net, blk, both] {
            assert!(workshop.made.lock().unwrap().is_empty());
        }
        assert!(w.bus.devices().is_empty());
    });
}

#[test]
fn values_at_the_edge_are_taken() {
    let w = World::new();
    w.run(async {
        w.open("net", &[NET]).await;
        w.open("both", &[NET, BLOCK]).await;
        let with = |mtu, pairs, features| Attributes {
            mtu,
            max_queue_pairs: pairs,
            device_features: features,
            ..none()
        };
        let needs_nothing = Some(Features::EMPTY);
        for (manager, attributes) in [
            ("net", with(Some(68), None, None)),
            ("net", with(Some(u16::MAX), None, None)),
            ("net", with(None, Some(2), None)),
            ("net", with(None, Some(1), needs_nothing)),
            ("both", with(None, None, Some(virtio::F::VERSION_1.into()))),
            (
                "both",
                with(Some(1500), None, Some(virtio::net::F::MTU.into())),
            ),
        ] {
            let name = "n".repeat(63);
            w.add(&name, manager, attributes).await.unwrap();
            w.management.delete(&name).await.unwrap();
        }
    });
}

#[test]
fn a_management_device_that_fails_leaves_nothing() {
    let w = World::new();
    w.run(async {
        let workshop = w.open("net", &[NET]).await;
        workshop.out_of_memory.store(true, Ordering::Relaxed);
        let failed = w.add("foo", "net", none()).await.map(drop);
        assert_eq!(
            failed,
            Err(MgmtError::Create(CreateError::OutOfMemory { left: 0 }))
        );
        assert!(w.bus.devices().is_empty());
        workshop.out_of_memory.store(false, Ordering::Relaxed);
        w.add("foo", "net", none()).await.unwrap();
    });
}

#[test]
fn a_management_device_is_there_once() {
    let w = World::new();
    w.run(async {
        let workshop = w.open("net", &[NET]).await;
        assert_eq!(
            w.management.register(workshop).await,
            Err(MgmtError::Exists)
        );
    });
}
