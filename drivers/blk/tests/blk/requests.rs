//! Single requests.

use std::collections::VecDeque;
use std::sync::Arc;

use virtio::blk::F;
use virtio_blk::BlkError;

use crate::common::{Alarm, with_alarm};
use crate::fixture::{FLUSH, GET_ID, IN, Medium, OUT, SECTORS, Setup, poll_all};

#[test]
fn a_read_returns_what_the_disk_holds() {
    let blk = Setup::default().start();
    let mut medium = Medium::new(64);
    let buffer = blk.disk.buffer(4096).unwrap();
    let read = blk.serve(blk.disk.read(16, buffer), |seen| {
        assert_eq!(
            (seen.kind, seen.sector, seen.room, seen.data.len()),
            (IN, 16, 4096, 0)
        );
        medium.carry_out(seen)
    });
    assert_eq!(read.unwrap()[..], *medium.range(16, 4096));
}

#[test]
fn whoever_waits_is_woken_once_by_the_completion() {
    let blk = Setup::default().start();
    let alarm = Arc::<Alarm>::default();
    let mut read = Box::pin(blk.disk.read(0, blk.disk.buffer(512).unwrap()));
    assert!(with_alarm(&alarm, |cx| read.as_mut().poll(cx)).is_pending());
    let seen = blk.next().unwrap();
    assert_eq!(alarm.count(), 0);
    blk.answer(&seen, &[1; 512], 0);
    assert_eq!(alarm.count(), 1);
    assert!(with_alarm(&alarm, |cx| read.as_mut().poll(cx)).is_ready());
}

#[test]
fn disks_and_their_futures_can_be_used_by_any_task() {
    fn check(_: &(impl Send + Sync + Clone), _: [&dyn SendFuture; 4]) {}
    trait SendFuture: Send {}
    impl<F: Future + Send> SendFuture for F {}
    let blk = Setup::default().start();
    let disk = &blk.disk;
    let read = disk.read(0, disk.buffer(512).unwrap());
    let mut bytes = [0; 512];
    let into = disk.read_into(0, &mut bytes);
    check(
        disk,
        [&read, &into, &disk.write_from(0, &[0; 512]), &disk.flush()],
    );
}

#[test]
fn a_write_changes_the_disk_and_returns_the_buffer() {
    let blk = Setup::default().start();
    let mut medium = Medium::new(64);
    let mut buffer = blk.disk.buffer(1024).unwrap();
    buffer.fill(0xa5);
    let written = blk.serve(blk.disk.write(5, buffer), |seen| {
        assert_eq!(
            (seen.kind, seen.sector, seen.room, seen.data.len()),
            (OUT, 5, 0, 1024)
        );
        medium.carry_out(seen)
    });
    assert_eq!(written.unwrap().len(), 1024);
    assert_eq!(*medium.range(5, 1024), [0xa5; 1024]);
}

#[test]
fn a_flush_reaches_a_disk_with_a_cache_only() {
    let blk = Setup::default().start();
    let mut flushes = 0;
    let result = blk.serve(blk.disk.flush(), |seen| {
        assert_eq!(
            (seen.kind, seen.sector, seen.room, seen.data.len()),
            (FLUSH, 0, 0, 0)
        );
        flushes += 1;
        (Vec::new(), 0)
    });
    assert_eq!((result, flushes), (Ok(()), 1));

    let blk = Setup {
        features: F::empty(),
        ..Setup::default()
    }
    .start();
    assert_eq!(blk.refused(blk.disk.flush()), Ok(()));
}

#[test]
fn the_id_ends_at_its_first_zero_or_after_twenty_bytes() {
    let blk = Setup::default().start();
    let id = |bytes: &[u8; 20]| {
        blk.serve(blk.disk.id(), |seen| {
            assert_eq!((seen.kind, seen.room), (GET_ID, 20));
            (bytes.to_vec(), 0)
        })
    };
    assert_eq!(
        id(b"ringway-disk\0\0\0\0\0\0\0\0").as_deref(),
        Ok("ringway-disk")
    );
    assert_eq!(
        id(b"exactly twenty bytes").as_deref(),
        Ok("exactly twenty bytes")
    );
    assert_eq!(id(&[0; 20]).as_deref(), Ok(""));
}

#[test]
fn a_read_only_disk_refuses_writes_without_asking_the_device() {
    let blk = Setup::with(F::RO).start();
    assert!(blk.disk.is_read_only());
    let buffer = blk.disk.buffer(512).unwrap();
    assert_eq!(
        blk.refused(blk.disk.write(0, buffer)).unwrap_err(),
        BlkError::ReadOnly
    );
    assert_eq!(
        blk.refused(blk.disk.write_from(0, &[0; 512])),
        Err(BlkError::ReadOnly)
    );
    let mut medium = Medium::new(1);
    let buffer = blk.disk.buffer(512).unwrap();
    assert!(
        blk.serve(blk.disk.read(0, buffer), |seen| medium.carry_out(seen))
            .is_ok()
    );
}

#[test]
fn ranges_off_the_disk_are_refused() {
    for capacity in [SECTORS, u64::MAX] {
        let blk = Setup {
            capacity,
            ..Setup::default()
        }
        .start();
        let mut sectors = vec![u64::MAX, u64::MAX - 1];
        if capacity == SECTORS {
            sectors.extend([SECTORS, SECTORS - 1, 1 << 55, (1 << 55) + 1]);
        }
        for sector in sectors {
            let buffer = blk.disk.buffer(1024).unwrap();
            let error = blk.refused(blk.disk.read(sector, buffer)).unwrap_err();
            assert_eq!(error, BlkError::OutOfRange, "sector {sector} of {capacity}");
            let mut bytes = [0; 1024];
            let error = blk
                .refused(blk.disk.read_into(sector, &mut bytes))
                .unwrap_err();
            assert_eq!(error, BlkError::OutOfRange, "sector {sector} of {capacity}");
        }
    }
    let blk = Setup::default().start();
    let buffer = blk.disk.buffer(512).unwrap();
    let last = blk.serve(blk.disk.read(SECTORS - 1, buffer), |_| (vec![1; 512], 0));
    assert!(last.is_ok());
}

#[test]
fn what_is_not_in_whole_blocks_is_refused() {
    let blk = Setup::with(F::BLK_SIZE).start();
    assert_eq!(blk.disk.block_size(), 4096);
    for (sector, len) in [(0, 512), (0, 4095), (0, 4097), (1, 4096), (7, 8192)] {
        let buffer = blk.disk.buffer(len).unwrap();
        let error = blk.refused(blk.disk.read(sector, buffer)).unwrap_err();
        assert_eq!(error, BlkError::Unaligned, "{len} bytes at {sector}");
    }
    let blk = Setup::default().start();
    assert_eq!(blk.disk.block_size(), 512);
    for len in [1, 511, 513] {
        let error = blk
            .refused(blk.disk.write_from(0, &vec![0; len]))
            .unwrap_err();
        assert_eq!(error, BlkError::Unaligned, "{len} bytes");
    }
}

#[test]
fn size_max_and_seg_max_shape_requests_and_bound_them() {
    for features in [
        F::SIZE_MAX | F::SEG_MAX,
        F::SIZE_MAX | F::SEG_MAX | F::EVENT_IDX,
    ] {
        let blk = Setup::with(features).start();
        assert_eq!(blk.disk.max_transfer(), 4 * 4096);
        let buffer = blk.disk.buffer(4 * 4096 + 512).unwrap();
        let error = blk.refused(blk.disk.read(0, buffer)).unwrap_err();
        assert_eq!(error, BlkError::TooLarge);

        let mut medium = Medium::new(64);
        let buffer = blk.disk.buffer(3 * 4096 + 512).unwrap();
        let read = blk.serve(blk.disk.read(3, buffer), |seen| {
            let lengths: Vec<u32> = seen.request.writable.iter().map(|s| s.len).collect();
            assert_eq!(lengths, [4096, 4096, 4096, 512, 1]);
            medium.carry_out(seen)
        });
        assert_eq!(read.unwrap()[..], *medium.range(3, 3 * 4096 + 512));

        let mut buffer = blk.disk.buffer(2 * 4096).unwrap();
        buffer.fill(7);
        let written = blk.serve(blk.disk.write(3, buffer), |seen| {
            let lengths: Vec<u32> = seen.request.readable.iter().map(|s| s.len).collect();
            assert_eq!(lengths, [16, 4096, 4096]);
            medium.carry_out(seen)
        });
        assert!(written.is_ok());
        assert_eq!(*medium.range(3, 8192), [7; 8192]);
    }
}

#[test]
fn the_disks_errors_are_told_apart() {
    let blk = Setup::default().start();
    for (status, error) in [(1, BlkError::Io), (2, BlkError::Unsupported)] {
        let buffer = blk.disk.buffer(512).unwrap();
        let read = blk.serve(blk.disk.read(0, buffer), |_| (vec![0; 512], status));
        assert_eq!(read.unwrap_err(), error);
        let buffer = blk.disk.buffer(512).unwrap();
        let write = blk.serve(blk.disk.write(0, buffer), |_| (Vec::new(), status));
        assert_eq!(write.unwrap_err(), error);
        assert_eq!(
            blk.serve(blk.disk.flush(), |_| (Vec::new(), status)),
            Err(error)
        );
        assert_eq!(
            blk.serve(blk.disk.id(), |_| (vec![0; 20], status)),
            Err(error)
        );
    }
    let mut medium = Medium::new(1);
    let buffer = blk.disk.buffer(512).unwrap();
    assert!(
        blk.serve(blk.disk.read(0, buffer), |seen| medium.carry_out(seen))
            .is_ok()
    );
}

#[test]
fn thirty_two_requests_complete_in_any_order() {
    for features in [F::empty(), F::INDIRECT_DESC | F::EVENT_IDX] {
        let blk = Setup {
            features,
            ..Setup::default()
        }
        .start();
        let mut medium = Medium::new(64);
        let mut reads: VecDeque<_> = (0..32)
            .map(|sector| {
                let (disk, buffer) = (blk.disk.clone(), blk.disk.buffer(512).unwrap());
                Box::pin(async move { (sector, disk.read(sector, buffer).await.unwrap()) })
            })
            .collect();
        assert_eq!(poll_all(&mut reads, |_| {}), 0);
        let mut seen: Vec<_> = std::iter::from_fn(|| blk.next()).collect();
        assert_eq!(seen.len(), 32, "all are in flight at once");
        // 13 and 32 have no common divisor, so this goes through all of them out of order.
        let mut order = (0..32).map(|step| step * 13 % 32).collect::<Vec<usize>>();
        order.reverse();
        for index in order {
            let (data, status) = medium.carry_out(&seen[index]);
            blk.answer(&seen[index], &data, status);
            let ended = poll_all(&mut reads, |(sector, buffer)| {
                assert_eq!(sector, seen[index].sector, "the one that was answered ends");
                assert_eq!(buffer[..], *medium.range(sector, 512));
            });
            assert_eq!(ended, 1);
        }
        seen.clear();
        assert!(reads.is_empty());
    }
}

#[test]
fn more_requests_than_the_queue_holds_wait_for_their_turn() {
    // Without indirect descriptors a read takes three of the four.
    let blk = Setup {
        features: F::empty(),
        queue_size: 4,
        ..Setup::default()
    }
    .start();
    let mut medium = Medium::new(8);
    let mut reads: VecDeque<_> = (0..8)
        .map(|sector| {
            let (disk, buffer) = (blk.disk.clone(), blk.disk.buffer(512).unwrap());
            Box::pin(async move { (sector, disk.read(sector, buffer).await.unwrap()) })
        })
        .collect();
    let mut order = Vec::new();
    for _ in 0..20 {
        poll_all(&mut reads, |(sector, buffer)| {
            assert_eq!(buffer[..], *medium.range(sector, 512));
            order.push(sector);
        });
        while let Some(seen) = blk.next() {
            let (data, status) = medium.carry_out(&seen);
            blk.answer(&seen, &data, status);
        }
    }
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_dropped_request_keeps_its_buffer_until_the_disk_returns_it() {
    let blk = Setup::default().start();
    let idle = blk.world.memory();
    let buffer = blk.disk.buffer(4096).unwrap();
    let mut reads = VecDeque::from([Box::pin(blk.disk.read(0, buffer))]);
    poll_all(&mut reads, |_| {});
    let seen = blk.next().unwrap();
    reads.clear();
    assert_eq!(blk.world.memory(), idle + 4096, "the disk may still write");
    blk.answer(&seen, &[1; 4096], 0);
    assert_eq!(blk.world.memory(), idle);
    let mut medium = Medium::new(1);
    let buffer = blk.disk.buffer(512).unwrap();
    assert!(
        blk.serve(blk.disk.read(0, buffer), |seen| medium.carry_out(seen))
            .is_ok()
    );
}
