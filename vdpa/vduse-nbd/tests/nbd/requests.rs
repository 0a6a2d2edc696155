//! Each request of a virtio disk, the wrong ones among them, as driver and server see it.

use vdpa::Features;
use virtio::blk::F;

use crate::driver::{
    Answer, DISCARD, Driver, FLUSH, GET_ID, IN, IOERR, OK, OUT, UNSUPP, UNTOUCHED, WRITE_ZEROES,
    range, request,
};
use crate::link::ALL;
use crate::world::World;

const LEN: usize = 1 << 20;
/// What comes from the server: commands and their flags.
const READ: (u16, u16) = (0, 0);
const WRITE: (u16, u16) = (1, 0);
const WRITE_FUA: (u16, u16) = (1, 1);
const FLUSHED: (u16, u16) = (3, 0);
const TRIM: (u16, u16) = (4, 0);
const ZEROES: (u16, u16) = (6, 0);
const ZEROES_NO_HOLE: (u16, u16) = (6, 2);

fn features() -> Features {
    Features::from(F::FLUSH | F::DISCARD | F::WRITE_ZEROES)
}

#[test]
fn each_request_has_its_answer_and_reaches_the_server() {
    let (world, link) = World::served(LEN, ALL);
    world.platform.block_on(async {
        let mut driver = Driver::start(&world, "nbd", features()).await;
        let answer = driver.ask(&world, &request(OUT, 8, &[7; 2048]), 1).await;
        assert_eq!((answer.status(), answer.written), (OK, 1));
        let answer = driver.ask(&world, &request(IN, 7, &[]), 2049).await;
        assert_eq!((answer.status(), answer.written), (OK, 2049));
        assert_eq!(answer.bytes[..512], [0; 512]);
        assert_eq!(answer.bytes[512..2048], [7; 1536]);
        let status = |answer: Answer| answer.status();
        for (kind, range) in [
            (WRITE_ZEROES, range(8, 1, 0)),
            (WRITE_ZEROES, range(9, 1, 1)),
            (DISCARD, range(10, 1, 0)),
        ] {
            let answer = driver.ask(&world, &request(kind, 0, &range), 1).await;
            assert_eq!(status(answer), OK);
        }
        assert_eq!(
            status(driver.ask(&world, &request(FLUSH, 0, &[]), 1).await),
            OK
        );
        let id = driver.ask(&world, &request(GET_ID, 0, &[]), 21).await;
        assert_eq!((&id.bytes[..5], id.status()), (&b"disk\0"[..], OK));
        // With less room there is less of it.
        let id = driver.ask(&world, &request(GET_ID, 0, &[]), 3).await;
        assert_eq!((&id.bytes[..2], id.status()), (&b"di"[..], OK));
        driver.leave(&world).await;
    });
    let commands = link.commands.lock().unwrap();
    let expected = [WRITE, READ, ZEROES_NO_HOLE, ZEROES, TRIM, FLUSHED];
    assert_eq!(commands[..], expected);
    let disk = link.disk.lock().unwrap();
    assert_eq!(disk.stable[8 * 512..10 * 512], [0; 1024]);
    assert_eq!(disk.stable[10 * 512..12 * 512], [7; 1024]);
}

#[test]
fn what_cannot_be_is_refused_without_the_server() {
    let (world, link) = World::served(LEN, ALL);
    let end = LEN as u64 / 512;
    world.platform.block_on(async {
        let mut driver = Driver::start(&world, "nbd", features()).await;
        for (bytes, writable, status) in [
            (request(IN, end, &[]), 513, IOERR),
            (request(IN, end - 1, &[]), 1025, IOERR),
            (request(IN, u64::MAX, &[]), 513, IOERR),
            (request(IN, 0, &[]), 512, IOERR),
            (request(OUT, end, &[0; 512]), 1, IOERR),
            (request(OUT, 0, &[0; 100]), 1, IOERR),
            (request(FLUSH, 1, &[]), 1, IOERR),
            (request(GET_ID, 1, &[]), 21, IOERR),
            (request(DISCARD, 0, &range(end, 1, 0)), 1, IOERR),
            (request(DISCARD, 0, &range(0, 1, 1)), 1, UNSUPP),
            (request(WRITE_ZEROES, 0, &range(0, 1, 2)), 1, UNSUPP),
            (request(WRITE_ZEROES, 0, &[0; 32]), 1, IOERR),
            (request(99, 0, &[]), 1, UNSUPP),
            (vec![0; 15], 513, IOERR),
        ] {
            let answer = driver.ask(&world, &bytes, writable).await;
            assert_eq!(answer.status(), status, "{bytes:?}");
            let data = &answer.bytes[..writable - 1];
            assert!(data.iter().all(|byte| *byte == UNTOUCHED));
        }
        driver.leave(&world).await;
    });
    assert!(link.commands.lock().unwrap().is_empty());
}

#[test]
fn an_export_that_cannot_be_written_says_so() {
    // Read-only; it knows flush, and claims trim.
    let (world, link) = World::served(LEN, 0x27);
    world.platform.block_on(async {
        let mut driver = Driver::start(&world, "nbd", features() | F::RO.into()).await;
        let offered = driver.claim.device_features().unwrap();
        assert!(offered.contains(F::RO) && offered.contains(F::FLUSH));
        assert!(!offered.contains(F::DISCARD));
        let answer = driver.ask(&world, &request(OUT, 0, &[1; 512]), 1).await;
        assert_eq!(answer.status(), IOERR);
        let discard = request(DISCARD, 0, &range(0, 1, 0));
        assert_eq!(driver.ask(&world, &discard, 1).await.status(), IOERR);
        let zeroes = request(WRITE_ZEROES, 0, &range(0, 1, 0));
        assert_eq!(driver.ask(&world, &zeroes, 1).await.status(), UNSUPP);
        driver.leave(&world).await;
    });
    assert!(
        link.disk
            .lock()
            .unwrap()
            .cache
            .iter()
            .all(|byte| *byte == 0)
    );
}

/// VIRTIO 1.2, 5.2.6.2: without `FLUSH` the cache is written through.
#[test]
fn who_cannot_flush_finds_each_write_on_the_medium() {
    // With FUA, and with flushes in its place.
    for (flags, expected) in [(ALL, vec![WRITE_FUA]), (0x65, vec![WRITE, FLUSHED])] {
        let (world, link) = World::served(LEN, flags);
        world.platform.block_on(async {
            let mut driver = Driver::start(&world, "nbd", Features::EMPTY).await;
            let answer = driver.ask(&world, &request(OUT, 3, &[9; 512]), 1).await;
            assert_eq!(answer.status(), OK);
            driver.leave(&world).await;
        });
        let disk = link.disk.lock().unwrap();
        assert_eq!(disk.stable[3 * 512..4 * 512], [9; 512], "{flags:#x}");
        let commands = link.commands.lock().unwrap();
        assert!(commands.starts_with(&expected), "{commands:?}");
    }
}
