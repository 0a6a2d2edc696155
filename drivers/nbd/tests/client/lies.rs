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
    let mut world = World::new(LEN, options(true, Lie::None));
    world.connect();
    world.settle().unwrap();
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
fn reply_of_gigabytes_to_an_option_is_refused() {
    let mut world = World::new(LEN, options(true, Lie::Option));
    world.connect();
    assert_eq!(world.settle(), Err(Error::OptionReply));
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
    let mut world = World::new(LEN, options(true, Lie::None));
    world.connect();
    world.settle().unwrap();
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
    let mut world = World::new(LEN, options(true, Lie::None));
    world.connect();
    world.settle().unwrap();
    world.client.leave();
    world.settle().unwrap();
    assert!(world.server.unwrap().left);
}

#[test]
fn requests_that_were_taken_back_are_waited_for() {
    let mut world = World::new(LEN, options(true, Lie::None));
    world.connect();
    world.settle().unwrap();
    let number = read(&mut world);
    while world.exchange(8192).unwrap() {}
    world.client.abandon();
    assert!(!world.client.has_room(), "the server may still work on it");
    world.settle().unwrap();
    assert!(world.client.has_room() && world.client.is_idle());
    assert_eq!(world.requests.outcomes[number], None);
}
