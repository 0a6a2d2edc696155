//! A disk that does not keep to the specification: its queue ends, and with it everybody who waits.

use std::collections::VecDeque;

use vdpa::testing::DeviceRing;
use virtio::DeviceStatus;
use virtio_blk::BlkError;

use crate::fixture::{Blk, QUEUE, Seen, Setup, poll_all};

/// Makes four reads, does something with the first, and expects all four, and whatever follows, to
/// end with [`BlkError::Broken`].
fn assert_breaks(what: &str, lie: impl FnOnce(&Blk, &Seen)) {
    let blk = Setup::default().start();
    let mut reads: VecDeque<_> = (0..4)
        .map(|sector| Box::pin(blk.disk.read(sector, blk.disk.buffer(512).unwrap())))
        .collect();
    poll_all(&mut reads, |_| {});
    let first = blk.next().unwrap();
    lie(&blk, &first);
    blk.world.platform.run_until_stalled();
    let mut errors = Vec::new();
    for _ in 0..2 {
        poll_all(&mut reads, |result| errors.push(result.unwrap_err()));
        blk.world.platform.run_until_stalled();
    }
    assert_eq!(errors, [BlkError::Broken; 4], "{what}");
    assert_later_calls_fail(&blk, BlkError::Broken);
    assert!(
        blk.world.parent.status().contains(DeviceStatus::FAILED),
        "{what}"
    );
    drop(reads);
    blk.world.remove(vdpa::device::Removal::Orderly);
    drop(blk.disk);
    assert_eq!(blk.world.platform.heap().outstanding(), 0, "{what}");
}

pub(crate) fn assert_later_calls_fail(blk: &Blk, error: BlkError) {
    let disk = &blk.disk;
    assert_eq!(
        blk.refused(disk.read(0, disk.buffer(512).unwrap()))
            .unwrap_err(),
        error
    );
    assert_eq!(
        blk.refused(disk.write(0, disk.buffer(512).unwrap()))
            .unwrap_err(),
        error
    );
    assert_eq!(blk.refused(disk.read_into(0, &mut [0; 512])), Err(error));
    assert_eq!(blk.refused(disk.write_from(0, &[0; 512])), Err(error));
    assert_eq!(blk.refused(disk.flush()), Err(error));
    assert_eq!(blk.refused(disk.id()), Err(error));
}

/// Writes data and status, and returns the request with this used length.
fn answer_with_length(blk: &Blk, seen: &Seen, bytes: &[u8], written: u32) {
    blk.world.parent.with_ring(QUEUE, |ring| {
        ring.write(&seen.request, 0, bytes);
        ring.complete(u32::from(seen.request.head), written);
    });
    blk.world.parent.interrupt(QUEUE);
}

#[test]
fn a_status_that_was_not_written_breaks_the_disk() {
    assert_breaks("no status", |blk, seen| {
        answer_with_length(blk, seen, &[1; 512], 513);
    });
}

#[test]
fn a_status_that_does_not_exist_breaks_the_disk() {
    for status in [3, 4, 0x80, 0xfe] {
        assert_breaks("status", |blk, seen| {
            let bytes = [&[1; 512][..], &[status]].concat();
            answer_with_length(blk, seen, &bytes, 513);
        });
    }
}

#[test]
fn success_with_another_length_breaks_the_disk() {
    for written in [0, 1, 511, 512] {
        assert_breaks("length", |blk, seen| {
            answer_with_length(blk, seen, &[0; 513], written);
        });
    }
}

#[test]
fn a_length_beyond_the_request_breaks_the_disk() {
    assert_breaks("length", |blk, seen| {
        answer_with_length(blk, seen, &[0; 513], 514);
    });
}

#[test]
fn nothing_is_asked_of_a_disk_once_somebody_has_caught_it_lying() {
    let blk = Setup::default().start();
    let mut reads = VecDeque::from([Box::pin(blk.disk.read(0, blk.disk.buffer(512).unwrap()))]);
    poll_all(&mut reads, |_| {});
    let seen = blk.next().unwrap();
    blk.answer(&seen, &[0; 512], 77);
    assert_eq!(poll_all(&mut reads, |result| assert!(result.is_err())), 1);
    // Without a turn of the disk's task in between.
    let mut reads = VecDeque::from([Box::pin(blk.disk.read(0, blk.disk.buffer(512).unwrap()))]);
    poll_all(&mut reads, |result| {
        assert_eq!(result.unwrap_err(), BlkError::Broken);
    });
    assert!(reads.is_empty() && blk.next().is_none());
}

#[test]
fn a_lie_in_the_ring_breaks_the_disk() {
    type Lie = fn(&mut DeviceRing, u32);
    let lies: [(&str, Lie); 4] = [
        ("an id outside the ring", |ring, _| ring.complete(256, 513)),
        ("a huge id", |ring, _| ring.complete(0xffff_0000, 513)),
        ("a chain not in flight", |ring, head| {
            ring.complete((head + 100) % 256, 513);
        }),
        ("more used than given", |ring, _| ring.set_used_index(5)),
    ];
    for (what, lie) in lies {
        assert_breaks(what, |blk, seen| {
            blk.world
                .parent
                .with_ring(QUEUE, |ring| lie(ring, u32::from(seen.request.head)));
            blk.world.parent.interrupt(QUEUE);
        });
    }
}

#[test]
fn a_disk_that_asks_for_a_reset_ends_every_request() {
    assert_breaks("needs reset", |blk, _| blk.world.parent.demand_reset());
}

#[test]
fn without_direct_descriptors_the_status_is_judged_alike() {
    let blk = Setup {
        features: virtio::blk::F::empty(),
        ..Setup::default()
    }
    .start();
    let read = blk.disk.read(0, blk.disk.buffer(512).unwrap());
    assert_eq!(
        blk.serve(read, |_| (vec![0; 512], 9)).unwrap_err(),
        BlkError::Broken
    );
}
