//! Transfers of any length to and from ordinary memory.

use std::collections::VecDeque;

use virtio::blk::F;
use virtio_blk::BlkError;

use crate::fixture::{IN, Medium, OUT, Setup, poll_all};

#[test]
fn a_long_read_is_cut_into_pieces_several_of_which_are_in_flight() {
    let blk = Setup::default().start();
    let mut medium = Medium::new(2048);
    let len = 9 * 65_536 + 512;
    let mut bytes = vec![0; len];
    let mut pieces = Vec::new();
    let result = blk.serve(blk.disk.read_into(3, &mut bytes), |seen| {
        assert_eq!(seen.kind, IN);
        pieces.push((seen.sector, seen.room));
        medium.carry_out(seen)
    });
    assert_eq!(result, Ok(()));
    assert_eq!(bytes, medium.range(3, len));
    let expected: Vec<_> = (0..10)
        .map(|i| (3 + 128 * i, if i == 9 { 512 } else { 65_536 }))
        .collect();
    pieces.sort_unstable();
    assert_eq!(pieces, expected);
}

#[test]
fn four_pieces_of_a_write_are_in_flight_at_once() {
    let blk = Setup::default().start();
    let bytes = vec![7; 8 * 65_536];
    let mut write = Box::pin(blk.disk.write_from(0, &bytes));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(write.as_mut().poll(&mut cx).is_pending());
    let seen: Vec<_> = std::iter::from_fn(|| blk.next()).collect();
    assert_eq!(
        seen.iter().map(|seen| seen.sector).collect::<Vec<_>>(),
        [0, 128, 256, 384]
    );
    blk.answer(&seen[2], &[], 0);
    assert!(write.as_mut().poll(&mut cx).is_pending());
    assert_eq!(
        blk.next().unwrap().sector,
        512,
        "the next piece follows the one that ended"
    );
}

#[test]
fn what_was_written_reads_back_for_every_shape() {
    let limited = Setup::with(F::SIZE_MAX | F::SEG_MAX | F::BLK_SIZE);
    for setup in [Setup::default(), limited] {
        let blk = setup.start();
        let block = blk.disk.block_size();
        let mut medium = Medium::new(2048);
        for blocks in [1, 2, 7, 8, 33] {
            let bytes: Vec<u8> = (0..blocks * block)
                .map(|i| (i * 7 + blocks) as u8)
                .collect();
            let write = blk.disk.write_from(8, &bytes);
            let written = blk.serve(write, |seen| {
                assert_eq!(seen.kind, OUT);
                assert!(seen.data.len() <= blk.disk.max_transfer());
                medium.carry_out(seen)
            });
            assert_eq!(written, Ok(()));
            assert_eq!(*medium.range(8, bytes.len()), bytes);
            let mut read = vec![0; bytes.len()];
            let into = blk.disk.read_into(8, &mut read);
            assert_eq!(blk.serve(into, |seen| medium.carry_out(seen)), Ok(()));
            assert_eq!(read, bytes);
        }
    }
}

#[test]
fn nothing_is_nothing() {
    let blk = Setup::default().start();
    assert_eq!(blk.refused(blk.disk.read_into(0, &mut [])), Ok(()));
    assert_eq!(blk.refused(blk.disk.write_from(0, &[])), Ok(()));
}

#[test]
fn the_first_error_ends_the_transfer() {
    let blk = Setup::default().start();
    let mut bytes = vec![0; 40 * 65_536];
    let mut asked = 0;
    let result = blk.serve(blk.disk.read_into(0, &mut bytes), |seen| {
        asked += 1;
        (vec![0; seen.room], u8::from(seen.sector == 128))
    });
    assert_eq!(result, Err(BlkError::Io));
    assert!(
        asked <= 8,
        "{asked} pieces were read though the second failed"
    );
}

#[test]
fn bounce_buffers_are_reused_and_at_most_eight_are_kept() {
    let blk = Setup::default().start();
    let idle = blk.world.memory();
    let mut medium = Medium::new(2048);
    let mut parts = vec![vec![0; 8 * 65_536]; 4];
    for _ in 0..3 {
        let mut reads: VecDeque<_> = parts
            .iter_mut()
            .map(|bytes| Box::pin(blk.disk.read_into(0, bytes)))
            .collect();
        poll_all(&mut reads, |_| {});
        assert_eq!(
            blk.world.memory(),
            idle + 16 * 65_536,
            "four in flight for each of four"
        );
        while !reads.is_empty() {
            while let Some(seen) = blk.next() {
                let (data, status) = medium.carry_out(&seen);
                blk.answer(&seen, &data, status);
            }
            poll_all(&mut reads, |result| assert_eq!(result, Ok(())));
        }
        assert_eq!(blk.world.memory(), idle + 8 * 65_536);
    }
    assert_eq!(parts[3], medium.range(0, 8 * 65_536));
}
