//! What a simulated disk does with requests, good ones and others.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use vdpa_sim::{Access, CreateError, Flavour, RamDisk, SimBlk, SimBlkConfig, SimConfig, Storage};
use virtio::blk::F;

use crate::disk::{
    DISCARD, FLUSH, GET_ID, IN, IOERR, OK, OUT, SECTOR, SECTORS, UNSUPP, WRITE_ZEROES, all, config,
    drive, header, ram_disk, range, sim_blk,
};
use crate::world::{UNTOUCHED, Variant, World, variants};

#[test]
fn what_is_written_is_read_back() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        let bytes: Vec<u8> = (0..255).cycle().take(300 * SECTOR).collect();
        // Across the end of an extent of the disk.
        let sector = 100;
        for (part, bytes) in bytes.chunks(50 * SECTOR).enumerate() {
            let answer = rig.write(&world, sector + 50 * part as u64, bytes);
            assert_eq!((answer.status(), answer.written), (OK, 1), "{variant:?}");
        }
        let answer = rig.read(&world, sector, 100 * SECTOR);
        assert_eq!(answer.written, 100 * SECTOR + 1);
        assert_eq!(answer.bytes[..100 * SECTOR], bytes[..100 * SECTOR]);
        assert_eq!(rig.read(&world, SECTORS - 1, SECTOR).bytes, [0; SECTOR + 1]);
        assert_eq!(rig.request(&world, FLUSH, 0, &[]), OK);
        let id = rig.exchange(&world, 0, &[&header(GET_ID, 0)], &[20, 1]);
        assert_eq!((&id.bytes[..8], id.status()), (&b"sim-blk\0"[..], OK));
        let mut on_disk = vec![0; bytes.len()];
        disk.read(sector * SECTOR as u64, &mut on_disk).unwrap();
        assert!(on_disk == bytes);
        for (name, count) in [
            ("reads", 2),
            ("read bytes", 101 * SECTOR as u64),
            ("writes", 6),
            ("written bytes", 300 * SECTOR as u64),
            ("flushes", 1),
            ("errors", 0),
            ("dma faults", 0),
        ] {
            assert_eq!(rig.count(0, name), count, "{name}");
        }
        let device = rig.stop(&world);
        world.unregister(&device);
    }
}

#[test]
fn a_header_and_data_may_be_cut_anywhere() {
    let (world, disk) = (World::new(), ram_disk());
    let mut rig = drive(&world, &disk, Variant::BEST);
    let mut request = header(OUT, 3).to_vec();
    request.extend([7; SECTOR]);
    let (first, rest) = request.split_at(5);
    let (second, third) = rest.split_at(200);
    let answer = rig.exchange(&world, 0, &[first, second, third], &[1]);
    assert_eq!(answer.status(), OK);
    let answer = rig.exchange(&world, 0, &[&header(IN, 3)], &[1, 500, 12]);
    assert_eq!(answer.bytes, [&[7; SECTOR][..], &[OK]].concat());
}

#[test]
fn a_request_for_what_is_not_on_the_disk_fails_and_touches_nothing() {
    let (world, disk) = (World::new(), ram_disk());
    let mut rig = drive(&world, &disk, Variant::BEST);
    let last = SECTORS - 1;
    let wrapping = u64::MAX / SECTOR as u64;
    for sector in [SECTORS, SECTORS + 1, last, wrapping, wrapping + 1, u64::MAX] {
        let answer = rig.read(&world, sector, 2 * SECTOR);
        assert_eq!((answer.status(), answer.written), (IOERR, 0), "{sector}");
        assert!(
            answer.bytes[..2 * SECTOR]
                .iter()
                .all(|byte| *byte == UNTOUCHED)
        );
        let answer = rig.write(&world, sector, &[1; 2 * SECTOR]);
        assert_eq!((answer.status(), answer.written), (IOERR, 1), "{sector}");
    }
    assert_eq!(disk.allocated(), 0);
    assert_eq!(rig.read(&world, last, SECTOR).status(), OK);
    assert_eq!(rig.count(0, "errors"), 12);
}

#[test]
fn a_request_that_makes_no_sense_fails() {
    let (world, disk) = (World::new(), ram_disk());
    let mut rig = drive(&world, &disk, Variant::BEST);
    // No whole number of sectors.
    assert_eq!(rig.read(&world, 0, SECTOR - 1).status(), IOERR);
    assert_eq!(rig.write(&world, 0, &[0; SECTOR + 1]).status(), IOERR);
    // A type that does not exist, and one that has no feature here.
    assert_eq!(rig.request(&world, 99, 0, &[]), UNSUPP);
    assert_eq!(rig.request(&world, 14, 0, &[0; 16]), UNSUPP);
    // A sector where none is named.
    assert_eq!(rig.request(&world, FLUSH, 1, &[]), IOERR);
    assert_eq!(rig.request(&world, GET_ID, 1, &[]), IOERR);
    // Too short for a header, for an id.
    let answer = rig.exchange(&world, 0, &[&[0; 15]], &[SECTOR, 1]);
    assert_eq!(answer.status(), IOERR);
    let answer = rig.exchange(&world, 0, &[&header(GET_ID, 0)], &[19, 1]);
    assert_eq!(answer.status(), IOERR);
    // Nowhere to put a status; nothing to read at all.
    let answer = rig.exchange(&world, 0, &[&header(OUT, 0), &[1; SECTOR]], &[]);
    assert_eq!((answer.written, disk.allocated()), (0, 0));
    let answer = rig.exchange(&world, 0, &[], &[SECTOR, 1]);
    assert_eq!(answer.status(), IOERR);
    assert!(rig.read(&world, 0, SECTOR).status() == OK, "it still works");
}

#[test]
fn ranges_are_zeroed_and_their_memory_is_given_back() {
    for kind in [DISCARD, WRITE_ZEROES] {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, Variant::BEST);
        disk.write(0, &vec![9; 1 << 20]).unwrap();
        let before = disk.allocated();
        // The disk's second extent, and a part of its third.
        let list = [range(128, 128, 0), range(300, 2, 0)].concat();
        assert_eq!(rig.request(&world, kind, 0, &list), OK);
        assert_eq!(disk.allocated(), before - 128 * SECTOR);
        let sizes = [65 * SECTOR, 65 * SECTOR, 1];
        let bytes = rig.exchange(&world, 0, &[&header(IN, 127)], &sizes).bytes;
        let edge = bytes.len() - 1 - SECTOR;
        assert!(bytes[..SECTOR].iter().all(|byte| *byte == 9));
        assert!(bytes[SECTOR..edge].iter().all(|byte| *byte == 0));
        assert!(bytes[edge..bytes.len() - 1].iter().all(|byte| *byte == 9));
        assert_eq!(
            rig.read(&world, 300, 2 * SECTOR).bytes[..2 * SECTOR],
            [0; 1024]
        );
    }
}

#[test]
fn a_list_of_ranges_is_taken_whole_or_not_at_all() {
    let (world, disk) = (World::new(), ram_disk());
    let mut rig = drive(&world, &disk, Variant::BEST);
    disk.write(0, &vec![9; 1 << 20]).unwrap();
    let good = range(0, 8, 0);
    let bad: [(&[u8], u8); 7] = [
        (&range(SECTORS, 1, 0), IOERR),
        (&range(SECTORS - 1, 2, 0), IOERR),
        (&range(u64::MAX, 8, 0), IOERR),
        (&range(0, 8193, 0), IOERR),
        (&range(0, 8, 2), UNSUPP),
        (&[0; 8], IOERR),
        (&[0; 16 * 8], IOERR),
    ];
    for (rest, status) in bad {
        let list = [&good[..], rest].concat();
        assert_eq!(
            rig.request(&world, WRITE_ZEROES, 0, &list),
            status,
            "{rest:?}"
        );
        assert_eq!(rig.request(&world, DISCARD, 0, &list), status, "{rest:?}");
    }
    // Only zeroes may be written so that blocks go back.
    let unmap = range(64, 8, 1);
    assert_eq!(rig.request(&world, DISCARD, 0, &unmap), UNSUPP);
    assert_eq!(rig.request(&world, DISCARD, 0, &[]), IOERR);
    let mut bytes = vec![0; 1 << 20];
    disk.read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 9));
    assert_eq!(rig.request(&world, WRITE_ZEROES, 0, &unmap), OK);
}

#[test]
fn what_was_not_negotiated_is_not_known() {
    let (world, disk) = (World::new(), ram_disk());
    let ops = sim_blk(&world, &disk, SimConfig::default());
    let mut rig = world.drive(ops, Variant::BEST, F::SEG_MAX, &[0]);
    for (kind, data) in [
        (FLUSH, &[][..]),
        (DISCARD, &[0; 16]),
        (WRITE_ZEROES, &[0; 16]),
    ] {
        assert_eq!(rig.request(&world, kind, 0, data), UNSUPP, "{kind}");
    }
}

#[test]
fn a_driver_that_knows_the_longest_segment_keeps_to_it() {
    let too_long = [1; 64 * 1024 + SECTOR];
    for (features, status) in [(all(), IOERR), (F::SEG_MAX, OK)] {
        let (world, disk) = (World::new(), ram_disk());
        let ops = sim_blk(&world, &disk, SimConfig::default());
        let mut rig = world.drive(ops, Variant::BEST, features, &[0]);
        assert_eq!(rig.write(&world, 0, &too_long).status(), status);
    }
}

#[test]
fn a_disk_that_can_only_be_read_is_not_written() {
    let (world, disk) = (World::new(), ram_disk());
    let config = SimBlkConfig {
        access: Access::ReadOnly,
        ..config(&disk, SimConfig::default())
    };
    let ops = SimBlk::new(&config, &world.kernel()).unwrap();
    assert!(ops.device_features().contains(F::RO));
    let mut rig = world.drive(ops, Variant::BEST, all() | F::RO, &[0]);
    assert_eq!(rig.write(&world, 0, &[1; SECTOR]).status(), IOERR);
    assert_eq!(rig.request(&world, DISCARD, 0, &range(0, 1, 0)), IOERR);
    assert_eq!(rig.request(&world, WRITE_ZEROES, 0, &range(0, 1, 0)), IOERR);
    assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
    assert_eq!(rig.request(&world, FLUSH, 0, &[]), OK);
    assert_eq!(disk.allocated(), 0);
}

#[test]
fn the_configuration_space_tells_what_the_disk_is() {
    let (world, disk) = (World::new(), ram_disk());
    let config = SimBlkConfig {
        block_size: 4096,
        queues: 3,
        ..config(&disk, SimConfig::default())
    };
    let ops = SimBlk::new(&config, &world.kernel()).unwrap();
    let mut rig = world.drive(ops, Variant::BEST, all() | F::CONFIG_WCE, &[0]);
    let field = |offset: u32, len: usize| {
        let mut bytes = [0; 8];
        rig.device.read_config(offset, &mut bytes[..len]).unwrap();
        u64::from_le_bytes(bytes)
    };
    assert_eq!(field(0, 8), SECTORS);
    assert_eq!((field(8, 4), field(12, 4)), (64 * 1024, 254));
    assert_eq!((field(20, 4), field(34, 2)), (4096, 3));
    assert_eq!((field(36, 4), field(40, 4), field(44, 4)), (8192, 8, 8));
    assert_eq!((field(48, 4), field(52, 4), field(56, 1)), (8192, 8, 1));
    // The cache is all that can be switched, and a reset switches it on.
    assert_eq!(field(32, 1), 1);
    rig.device.write_config(0, &[0; 60]).unwrap();
    assert_eq!((field(0, 8), field(32, 1)), (SECTORS, 0));
    rig.device.write_config(32, &[2]).unwrap();
    assert_eq!(field(32, 1), 0);
    assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
    let device = rig.stop(&world);
    let mut writeback = [0];
    device.read_config(32, &mut writeback).unwrap();
    assert_eq!(writeback, [1]);
}

#[test]
fn every_queue_is_served_and_none_starves() {
    let (world, disk) = (World::new(), ram_disk());
    let ops = sim_blk(&world, &disk, SimConfig::default());
    let mut rig = world.drive(ops, Variant::BEST, all(), &[0, 1]);
    // Far more than a turn of the worker.
    for _ in 0..60 {
        rig.offer(0, &[&header(IN, 0)], &[64 * 1024, 1]);
    }
    rig.offer(1, &[&header(IN, 0)], &[SECTOR, 1]);
    rig.arm();
    rig.kick(0);
    rig.kick(1);
    world.run();
    assert_eq!(rig.take(1).unwrap().status(), OK);
    for _ in 0..60 {
        assert_eq!(rig.take(0).unwrap().status(), OK);
    }
    // A turn of 64 pays for 12 such requests: several turns, and one interrupt for each at most.
    assert_eq!((rig.count(0, "reads"), rig.count(1, "reads")), (60, 1));
    assert_eq!(rig.lines[1].event.count(), 1);
}

#[test]
fn other_tasks_run_while_a_long_queue_is_served() {
    let (world, disk) = (World::new(), ram_disk());
    let ops = sim_blk(&world, &disk, SimConfig::default());
    let mut rig = world.drive(ops, Variant::BEST, all(), &[0]);
    for _ in 0..60 {
        rig.offer(0, &[&header(IN, 0)], &[64 * 1024, 1]);
    }
    rig.kick(0);
    // A task that is ready all the time sees how far the disk has come whenever it runs.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (device, notes) = (Arc::clone(&rig.device), Arc::clone(&seen));
    let watch = poll_fn(move |cx| {
        let counters = device.queue_statistics(0).unwrap();
        let (_, reads) = counters
            .into_iter()
            .find(|(name, _)| *name == "reads")
            .unwrap();
        notes.lock().unwrap().push(reads);
        if reads == 60 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    world.kernel().spawn("watch", Box::pin(watch));
    world.run();
    let seen = seen.lock().unwrap();
    let longest = seen.windows(2).map(|pair| pair[1] - pair[0]).max();
    // A turn pays for 64 chains, and such a request costs as much as five.
    assert!(longest.is_some_and(|longest| longest <= 13), "{seen:?}");
}

#[test]
fn a_batch_is_one_interrupt_and_one_notification() {
    for packed in [false, true] {
        let variant = Variant {
            packed,
            ..Variant::BEST
        };
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        world.run();
        rig.arm();
        let mut kicks = 0;
        for _ in 0..32 {
            rig.offer(0, &[&header(IN, 0)], &[SECTOR, 1]);
            kicks += u32::from(rig.kick(0));
        }
        world.run();
        assert_eq!((kicks, rig.lines[0].event.count()), (1, 1), "{variant:?}");
        while rig.take(0).is_some() {}
        // Nobody asked for another one.
        rig.offer(0, &[&header(IN, 0)], &[SECTOR, 1]);
        assert!(rig.kick(0));
        world.run();
        assert_eq!(rig.lines[0].event.count(), 1);
        assert_eq!(rig.take(0).unwrap().status(), OK);
    }
}

#[test]
fn devices_share_a_disk() {
    let (world, disk) = (World::new(), ram_disk());
    let mut one = drive(&world, &disk, Variant::BEST);
    let whole = Variant {
        flavour: Flavour::Whole,
        packed: false,
        ..Variant::BEST
    };
    let mut other = drive(&world, &disk, whole);
    assert_eq!(one.write(&world, 5, &[3; SECTOR]).status(), OK);
    assert_eq!(other.read(&world, 5, SECTOR).bytes[..SECTOR], [3; SECTOR]);
}

#[test]
fn an_impossible_disk_is_not_made() {
    let world = World::new();
    let disk = ram_disk();
    let good = config(&disk, SimConfig::default());
    let refused = |config: SimBlkConfig| SimBlk::new(&config, &world.kernel()).err();
    for block_size in [0, 256, 513, 1 << 17] {
        let config = SimBlkConfig {
            block_size,
            ..good.clone()
        };
        assert_eq!(refused(config), Some(CreateError::BadBlockSize));
    }
    for queues in [0, 65] {
        let config = SimBlkConfig {
            queues,
            ..good.clone()
        };
        assert_eq!(refused(config), Some(CreateError::BadQueueCount));
    }
    let config = SimBlkConfig {
        disk: RamDisk::new(512 * 3, Storage::Plain).unwrap(),
        block_size: 1024,
        ..good.clone()
    };
    assert_eq!(refused(config), Some(CreateError::BadCapacity));
    for queue_size in [0, 1, 100, 2048] {
        let sim = SimConfig {
            queue_size,
            ..SimConfig::default()
        };
        let config = SimBlkConfig {
            sim,
            ..good.clone()
        };
        assert_eq!(refused(config), Some(CreateError::BadQueueSize));
    }
    assert!(world.platform.tasks().is_empty());
    assert_eq!(Arc::strong_count(&disk), 2);
}
