//! What a server has no right to is noticed, and costs a connection, not more.

use std::time::Duration;

use nbd_client::{Command, Durability, Error, RequestError};

use crate::server::{Lie, Options};
use crate::world::World;

const LEN: usize = 64 << 10;
/// All that a server can do.
const FLAGS: u16 = 0x6d;

fn options(structured: bool, lie: Lie) -> Options {
    Options {
        structured,
        go: true,
        flags: FLAGS,
        max: 4096,
        lie,
    }
}

/// A client of an honest server that has found its export.
fn served() -> World {
    let mut world = World::new(LEN, options(true, Lie::None));
    world.connect();
    world.settle().unwrap();
    world
}

/// A write that may stay in the server's cache.
fn write_sevens(world: &mut World) {
    let write = Command::Write {
        offset: 0,
        len: 512,
        durability: Durability::Cached,
    };
    world.submit(write, vec![7; 512]);
}

fn read(world: &mut World) -> usize {
    let command = Command::Read {
        offset: 4096,
        len: 8192,
    };
    world.submit(command, vec![0; 8192])
}

#[test]
fn every_lie_ends_the_connection_and_the_next_one_serves() {
    for (structured, lie, error) in [
        (false, Lie::Cookie, Error::Cookie),
        (true, Lie::Cookie, Error::Cookie),
        (false, Lie::Twice, Error::Cookie),
        (true, Lie::Twice, Error::Cookie),
        (true, Lie::Outside, Error::Outside),
        (true, Lie::Overlap, Error::Outside),
        (true, Lie::Short, Error::Incomplete),
        (false, Lie::Magic, Error::Reply),
        (true, Lie::Magic, Error::Reply),
        (true, Lie::Chunk, Error::Chunk),
        (true, Lie::NoError, Error::Chunk),
        (true, Lie::Before, Error::Outside),
        (true, Lie::Overflow, Error::Outside),
        (true, Lie::Long, Error::Outside),
        (true, Lie::NoHole, Error::Outside),
        (true, Lie::Crumbs, Error::Outside),
        (true, Lie::Text, Error::Chunk),
        (true, Lie::TextBeyond, Error::Chunk),
        (true, Lie::Nothing, Error::Chunk),
        (true, Lie::OtherKind, Error::Reply),
        (false, Lie::OtherKind, Error::Reply),
        (true, Lie::Option, Error::OptionReply),
        (true, Lie::AckWithData, Error::OptionReply),
        (true, Lie::OtherOption, Error::OptionReply),
        (true, Lie::Endless, Error::OptionReply),
        (true, Lie::NoInfo, Error::OptionReply),
        (true, Lie::BlockOfNothing, Error::Sizes),
        (true, Lie::NegativeSize, Error::Sizes),
        (false, Lie::Unknown, Error::NoExport),
        (true, Lie::Tls, Error::Tls),
        (true, Lie::Policy, Error::Refused(1 << 31 | 2)),
    ] {
        let mut world = World::new(LEN, options(structured, Lie::None));
        world.disk.cache.fill(7);
        world.disk.stable.fill(7);
        world.connect();
        world.settle().unwrap();
        world.kill(None);
        world.options.lie = lie;
        let number = read(&mut world);
        world.connect();
        assert_eq!(world.settle(), Err(error), "{lie:?}");
        world.kill(Some(error));
        world.options.lie = Lie::None;
        world.connect();
        world.settle().unwrap();
        assert_eq!(world.requests.outcomes[number], Some(Ok(())), "{lie:?}");
        assert!(world.requests.buffers[number].iter().all(|byte| *byte == 7));
    }
}

#[test]
fn a_request_that_meets_with_lies_alone_fails_in_the_end() {
    let mut world = served();
    world.kill(None);
    let number = read(&mut world);
    world.options.lie = Lie::Cookie;
    for _ in 0..4 {
        assert_eq!(world.requests.outcomes[number], None);
        world.connect();
        let error = world.settle().unwrap_err();
        world.kill(Some(error));
    }
    assert_eq!(world.requests.outcomes[number], Some(Err(RequestError::Io)));
    assert!(world.client.is_idle());
}

#[test]
fn data_for_what_reads_nothing_is_noticed() {
    let mut world = served();
    world.kill(None);
    world.options.lie = Lie::DataOfFlush;
    world.submit(Command::Flush, Vec::new());
    world.connect();
    assert_eq!(world.settle(), Err(Error::Chunk));
}

#[test]
fn servers_that_refuse_the_export_let_nobody_wait_for_ever() {
    let mut world = served();
    write_sevens(&mut world);
    world.settle().unwrap();
    world.kill(None);
    let number = read(&mut world);
    // One that is not there is waited for.
    (0..100).for_each(|_| world.kill(None));
    let size = world.disk.stable.len();
    world.disk = crate::server::Disk::new(2 * size);
    for _ in 0..8 {
        assert_eq!(world.requests.outcomes[number], None);
        world.connect();
        assert_eq!(world.settle(), Err(Error::Changed));
        world.kill(Some(Error::Changed));
    }
    assert_eq!(world.requests.outcomes[number], Some(Err(RequestError::Io)));
    assert!(world.client.is_idle());
    let later = read(&mut world);
    world.connect();
    world.kill(Some(Error::Changed));
    assert_eq!(world.requests.outcomes[later], Some(Err(RequestError::Io)));
    // What was acknowledged is kept for the server that has the export.
    world.disk = crate::server::Disk::new(size);
    let again = read(&mut world);
    world.connect();
    world.settle().unwrap();
    assert_eq!(world.requests.outcomes[again], Some(Ok(())));
    assert!(world.disk.cache[..512].iter().all(|byte| *byte == 7));
}

#[test]
fn a_server_that_takes_nothing_while_it_talks_is_given_up() {
    let mut world = served();
    let write = Command::Write {
        offset: 0,
        len: 8192,
        durability: Durability::Cached,
    };
    world.submit(write, vec![0; 8192]);
    let mut room = [0; 100];
    let mut now = world.now;
    let World {
        client, requests, ..
    } = &mut world;
    client.transmit(&mut room, now, requests).unwrap();
    // The head of a reply to nobody, a byte at a time.
    for byte in 0x6744_6698_u32.to_be_bytes() {
        now += Duration::from_secs(29);
        client.check_time(now).unwrap();
        client.receive(&[byte], now, requests).unwrap();
    }
    now += Duration::from_secs(4);
    assert_eq!(client.check_time(now), Err(Error::Silent));
}

#[test]
fn export_smaller_than_its_block_has_nothing_to_read() {
    let mut world = World::new(256, options(true, Lie::None));
    world.connect();
    world.settle().unwrap();
    for (offset, len) in [(0, 256), (0, 512)] {
        let number = world.submit(Command::Read { offset, len }, vec![0; 512]);
        let outcome = world.requests.outcomes[number];
        assert_eq!(outcome, Some(Err(RequestError::Invalid)));
    }
}

#[test]
fn other_protocols_are_told_apart() {
    for (greeting, error) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], Error::NotNbd),
        (b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0", Error::Oldstyle),
        (b"NBDMAGICNBDMAGIC\0\0", Error::NotNbd),
    ] {
        let mut world = World::new(LEN, options(true, Lie::None));
        world.client.connected(Duration::ZERO);
        let received = world
            .client
            .receive(greeting, Duration::ZERO, &mut world.requests);
        assert_eq!(received, Err(error));
    }
}

#[test]
fn silence_has_an_end() {
    let mut world = World::new(LEN, options(true, Lie::Silence));
    world.connect();
    assert!(world.client.check_time(Duration::from_secs(9)).is_ok());
    assert_eq!(
        world.client.check_time(Duration::from_secs(10)),
        Err(Error::Silent)
    );
    world.settle().unwrap();
    assert_eq!(world.client.deadline(), None, "nothing is awaited");
    world.now = Duration::from_secs(100);
    read(&mut world);
    world.settle().unwrap();
    assert!(world.client.check_time(Duration::from_secs(129)).is_ok());
    let silent = world.client.check_time(Duration::from_secs(130));
    assert_eq!(silent, Err(Error::Silent));
}

#[test]
fn another_export_is_not_taken_for_the_first_one() {
    let mut world = served();
    for change in [
        |world: &mut World| world.disk = crate::server::Disk::new(2 * LEN),
        |world: &mut World| world.options.flags ^= 1 << 1,
        |world: &mut World| world.options.max = 8192,
    ] {
        world.kill(None);
        let before = world.options;
        change(&mut world);
        world.connect();
        assert_eq!(world.settle(), Err(Error::Changed));
        world.options = before;
        world.disk = crate::server::Disk::new(LEN);
    }
}

#[test]
fn what_the_export_does_not_take_is_refused_here() {
    let mut world = World::new(LEN, options(true, Lie::None));
    world.options.flags = 0x03;
    world.connect();
    world.settle().unwrap();
    let durability = Durability::Cached;
    let write = |offset, len| Command::Write {
        offset,
        len,
        durability,
    };
    let trim = Command::Trim {
        offset: 0,
        len: 512,
        durability,
    };
    for (command, error) in [
        (write(0, 512), RequestError::Permission),
        (Command::Flush, RequestError::Unsupported),
        (trim, RequestError::Unsupported),
        (
            Command::Read {
                offset: 1,
                len: 512,
            },
            RequestError::Invalid,
        ),
        (
            Command::Read {
                offset: 0,
                len: 513,
            },
            RequestError::Invalid,
        ),
        (
            Command::Read {
                offset: LEN as u64,
                len: 512,
            },
            RequestError::Invalid,
        ),
        (
            Command::Read {
                offset: u64::MAX - 511,
                len: 512,
            },
            RequestError::Invalid,
        ),
    ] {
        let number = world.submit(command, vec![0; 1024]);
        assert_eq!(world.requests.outcomes[number], Some(Err(error)));
    }
}

#[test]
fn the_server_hears_that_nothing_more_comes() {
    let mut world = served();
    world.client.leave();
    world.settle().unwrap();
    assert!(world.server.as_ref().unwrap().left);
    assert!(!world.client.wants_to_transmit());
    // The next one is told nothing before there is something to tell.
    world.kill(None);
    world.client.leave();
    world.connect();
    world.settle().unwrap();
    assert!(!world.server.as_ref().unwrap().left);
}

#[test]
fn the_last_word_waits_for_what_is_done_again() {
    let mut world = served();
    write_sevens(&mut world);
    world.settle().unwrap();
    world.kill(None);
    world.connect();
    // The negotiation, and the write once more.
    while world.exchange(8192).unwrap() {}
    world.client.leave();
    assert!(!world.client.wants_to_transmit(), "an answer comes first");
    world.settle().unwrap();
    assert!(world.server.as_ref().unwrap().left);
    assert_eq!(world.disk.cache[0], 7);
}

#[test]
fn a_request_whose_bytes_are_gone_costs_one_connection() {
    let write = |offset| Command::Write {
        offset,
        len: 8192,
        durability: Durability::Cached,
    };
    let mut world = served();
    // Gone before they are sent, and before they are kept until the next flush.
    for sent in [false, true] {
        let gone = world.submit(write(0), vec![7; 8192]);
        let other = read(&mut world);
        if sent {
            while world.exchange(8192).unwrap() {}
        }
        world.requests.gone = Some(gone);
        let settled = world.settle();
        if !sent {
            assert_eq!(settled, Err(Error::TakenBack));
            world.kill(settled.err());
            world.connect();
        }
        world.settle().unwrap();
        assert_eq!(world.requests.outcomes[gone], Some(Err(RequestError::Io)));
        assert_eq!(world.requests.outcomes[other], Some(Ok(())));
        // And a read whose bytes have no place.
        let gone = read(&mut world);
        world.requests.gone = Some(gone);
        world.settle().unwrap();
        assert_eq!(world.requests.outcomes[gone], Some(Err(RequestError::Io)));
    }
}

#[test]
fn at_rest_nothing_is_left_to_be_done_again() {
    let mut world = served();
    assert!(world.client.rest(), "nothing was done");
    write_sevens(&mut world);
    assert!(!world.client.rest(), "a write is under way");
    world.settle().unwrap();
    // The server dies before it is flushed.
    assert!(!world.client.rest());
    world.kill(None);
    assert!(!world.client.rest());
    world.connect();
    world.settle().unwrap();
    assert!(world.client.rest());
    assert!(world.disk.stable[..512].iter().all(|byte| *byte == 7));
    // Somebody else writes.
    world.disk.cache[0] = 8;
    world.disk.stable[0] = 8;
    world.kill(None);
    world.connect();
    world.settle().unwrap();
    assert_eq!(world.disk.cache[0], 8);
}

#[test]
fn requests_that_were_taken_back_are_waited_for() {
    let mut world = served();
    let number = read(&mut world);
    while world.exchange(8192).unwrap() {}
    world.client.abandon();
    assert!(!world.client.has_room(), "the server may still work on it");
    world.settle().unwrap();
    assert!(world.client.has_room() && world.client.is_idle());
    assert_eq!(world.requests.outcomes[number], None);
}
