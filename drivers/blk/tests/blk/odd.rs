//! Disks that say odd things of themselves: what Linux works with works here, too, and the others
//! are refused without a trace.

use virtio::blk::F;
use virtio_bus::Registry;

use crate::fixture::{Medium, Setup};

/// A disk of 64 sectors with 512-byte blocks.
fn plain() -> Setup {
    Setup {
        capacity: 64,
        blk_size: 512,
        size_max: 4096,
        seg_max: 4,
        ..Setup::with(F::BLK_SIZE | F::SIZE_MAX | F::SEG_MAX)
    }
}

#[test]
fn what_can_be_used_is_used() {
    let disks = [
        ("as usual", plain()),
        (
            "no length of a segment",
            Setup {
                size_max: 0,
                ..plain()
            },
        ),
        (
            "short segments",
            Setup {
                size_max: 512,
                ..plain()
            },
        ),
        (
            "odd segments",
            Setup {
                size_max: 1000,
                ..plain()
            },
        ),
        (
            "endless segments",
            Setup {
                size_max: u32::MAX,
                ..plain()
            },
        ),
        (
            "no segment",
            Setup {
                seg_max: 0,
                ..plain()
            },
        ),
        (
            "more segments than there are",
            Setup {
                seg_max: u32::MAX,
                ..plain()
            },
        ),
        (
            "the shortest queue",
            Setup {
                queue_size: 4,
                ..plain()
            },
        ),
        (
            "the longest queue",
            Setup {
                queue_size: 32_768,
                ..plain()
            },
        ),
        (
            "a queue that is no power of two",
            Setup {
                queue_size: 100,
                ..plain()
            },
        ),
        (
            "features that nobody knows",
            Setup {
                features: plain().features
                    | F::from_bits_retain((1_u128 << 127 | 1 << 70 | 1 << 50 | 1 << 23).into()),
                ..plain()
            },
        ),
        (
            "the platform's addresses and order",
            Setup {
                features: plain().features | F::ACCESS_PLATFORM | F::ORDER_PLATFORM,
                ..plain()
            },
        ),
    ];
    for (name, setup) in disks {
        let blk = setup.start();
        let mut medium = Medium::new(64);
        let len = blk.disk.max_transfer().min(8 * 512);
        let buffer = blk.disk.buffer(len).unwrap();
        let read = blk.serve(blk.disk.read(3, buffer), |seen| medium.carry_out(seen));
        assert_eq!(&read.unwrap()[..], medium.range(3, len), "{name}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_and_leaves_nothing() {
    let blocks = [0, 1, 3, 256, 511, 513, 1536, 128 << 10, 1 << 31, u32::MAX];
    let blocks = blocks.map(|blk_size| Setup {
        blk_size,
        ..plain()
    });
    let queues = [2].map(|queue_size| Setup {
        queue_size,
        ..plain()
    });
    let segments = [Setup {
        size_max: 100,
        seg_max: 4,
        ..plain()
    }];
    for setup in blocks.into_iter().chain(queues).chain(segments) {
        let registry = Registry::new();
        let world = setup.world(&registry);
        assert_eq!(registry.names(), [""; 0]);
        assert_eq!(world.driver(), None);
        assert_eq!(world.memory(), 0);
    }
}

#[test]
fn a_disk_without_a_sector_can_grow() {
    let blk = Setup {
        capacity: 0,
        ..plain()
    }
    .start();
    assert_eq!(blk.disk.capacity(), 0);
    let buffer = blk.disk.buffer(512).unwrap();
    assert!(blk.refused(blk.disk.read(0, buffer)).is_err());
    for sectors in [64_u64, 0, u64::MAX, 64] {
        blk.world.parent.change_config(0, &sectors.to_le_bytes());
        blk.world.platform.run_until_stalled();
        assert_eq!(blk.disk.capacity(), sectors);
    }
    let mut medium = Medium::new(64);
    let buffer = blk.disk.buffer(512).unwrap();
    let read = blk.serve(blk.disk.read(63, buffer), |seen| medium.carry_out(seen));
    assert_eq!(&read.unwrap()[..], medium.range(63, 512));
}
