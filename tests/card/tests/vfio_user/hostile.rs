//! Clients that mean ill, or have lost their way: each message has its error, and the next one its
//! answer.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::client::{
    CONFIG, Client, DEVICE_INFO, DMA_MAP, DMA_UNMAP, IRQ_INFO, MSIX, REGION_INFO, REGION_READ,
    REGION_WRITE, RESET, SET_IRQS, VERSION, body,
};
use crate::driver::{BASE, MEMORY, Memory};
use crate::program::Program;

fn is_alive(client: &mut Client) -> bool {
    client.read(CONFIG, 0, 2) == Ok(vec![0xf4, 0x1a])
}

#[test]
fn each_malformed_message_is_refused_and_the_next_one_is_answered() {
    let program = Program::start("n3000-net", &[]);
    let mut client = Client::agreed(&program);
    let map = |flags: u32, offset: u64, address: u64, size: u64| {
        body!(32_u32, flags, offset, address, size)
    };
    let irqs =
        |flags: u32, index: u32, start: u32, count: u32| body!(20_u32, flags, index, start, count);
    let whole = u32::MAX;
    let config_end = 256_u64;
    for (command, body, expected) in [
        (VERSION, body!(0_u16, 0_u16), Errno::PROTO),
        (0, vec![], Errno::OPNOTSUPP),
        (6, vec![], Errno::OPNOTSUPP),
        (11, vec![0; 16], Errno::OPNOTSUPP),
        (12, vec![0; 16], Errno::OPNOTSUPP),
        (14, vec![], Errno::OPNOTSUPP),
        (15, vec![0; 4000], Errno::OPNOTSUPP),
        (u16::MAX, vec![], Errno::OPNOTSUPP),
        (DMA_MAP, vec![], Errno::INVAL),
        (DMA_MAP, vec![0; 31], Errno::INVAL),
        (DMA_MAP, vec![0; 33], Errno::INVAL),
        (DMA_MAP, map(3, 0, 0, 0), Errno::INVAL),
        (DMA_MAP, map(3, 0, 2, u64::MAX), Errno::INVAL),
        (DMA_MAP, map(0, 0, 0, 4096), Errno::INVAL),
        (DMA_MAP, map(7, 0, 0, 4096), Errno::INVAL),
        (DMA_UNMAP, vec![0; 23], Errno::INVAL),
        (
            DMA_UNMAP,
            body!(24_u32, 0_u32, 0_u64, 4096_u64),
            Errno::NOENT,
        ),
        (
            DMA_UNMAP,
            body!(24_u32, 0_u32, u64::MAX, u64::MAX),
            Errno::NOENT,
        ),
        (
            DMA_UNMAP,
            body!(24_u32, 2_u32, 0_u64, 4096_u64),
            Errno::OPNOTSUPP,
        ),
        (
            DMA_UNMAP,
            body!(24_u32, 4_u32, 0_u64, 4096_u64),
            Errno::INVAL,
        ),
        (DMA_UNMAP, body!(24_u32, whole, 0_u64, 0_u64), Errno::INVAL),
        (DEVICE_INFO, vec![], Errno::INVAL),
        (
            DEVICE_INFO,
            body!(15_u32, 0_u32, 0_u32, 0_u32),
            Errno::INVAL,
        ),
        (
            REGION_INFO,
            body!(31_u32, 0_u32, 0_u32, 0_u32, 0_u64, 0_u64),
            Errno::INVAL,
        ),
        (
            REGION_INFO,
            body!(32_u32, 0_u32, 9_u32, 0_u32, 0_u64, 0_u64),
            Errno::INVAL,
        ),
        (
            REGION_INFO,
            body!(32_u32, 0_u32, whole, 0_u32, 0_u64, 0_u64),
            Errno::INVAL,
        ),
        (REGION_INFO, body!(32_u32), Errno::INVAL),
        (IRQ_INFO, body!(16_u32, 0_u32, 5_u32, 0_u32), Errno::INVAL),
        (IRQ_INFO, body!(16_u32, 0_u32, whole, 0_u32), Errno::INVAL),
        (SET_IRQS, irqs(0x24, 0, 0, 0), Errno::INVAL),
        (SET_IRQS, irqs(0x24, whole, 0, 0), Errno::INVAL),
        (SET_IRQS, irqs(0x24, MSIX, 0, 7), Errno::INVAL),
        (SET_IRQS, irqs(0x24, MSIX, whole, whole), Errno::INVAL),
        (SET_IRQS, irqs(0x22, MSIX, 0, 1), Errno::OPNOTSUPP),
        (SET_IRQS, irqs(whole, MSIX, 0, 1), Errno::OPNOTSUPP),
        (
            SET_IRQS,
            [irqs(0x21, MSIX, 0, 1), vec![1]].concat(),
            Errno::INVAL,
        ),
        (REGION_READ, body!(0_u64, CONFIG), Errno::INVAL),
        (REGION_READ, body!(config_end, CONFIG, 1_u32), Errno::INVAL),
        (REGION_READ, body!(255_u64, CONFIG, 2_u32), Errno::INVAL),
        (REGION_READ, body!(u64::MAX, CONFIG, 1_u32), Errno::INVAL),
        (REGION_READ, body!(u64::MAX, 0_u32, whole), Errno::INVAL),
        (REGION_READ, body!(0_u64, CONFIG, whole), Errno::INVAL),
        (REGION_READ, body!(0_u64, 1_u32, 4_u32), Errno::INVAL),
        (REGION_READ, body!(0_u64, 9_u32, 4_u32), Errno::INVAL),
        (REGION_READ, body!(0_u64, 0_u32, 4097_u32), Errno::INVAL),
        (
            REGION_READ,
            [body!(0_u64, CONFIG, 4_u32), vec![0]].concat(),
            Errno::INVAL,
        ),
        (REGION_WRITE, body!(0_u64, CONFIG, 4_u32), Errno::INVAL),
        (
            REGION_WRITE,
            [body!(0_u64, CONFIG, 4_u32), vec![0; 5]].concat(),
            Errno::INVAL,
        ),
        (
            REGION_WRITE,
            [body!(0_u64, CONFIG, whole), vec![0; 4]].concat(),
            Errno::INVAL,
        ),
        (
            REGION_WRITE,
            [body!(254_u64, CONFIG, 4_u32), vec![0; 4]].concat(),
            Errno::INVAL,
        ),
        (
            REGION_WRITE,
            [body!(u64::MAX, 4_u32, 1_u32), vec![0]].concat(),
            Errno::INVAL,
        ),
        (RESET, vec![0], Errno::INVAL),
    ] {
        let context = (command, &body);
        assert_eq!(client.call(command, &body), Err(expected), "{context:?}");
        assert!(is_alive(&mut client), "{context:?}");
    }
    // Nothing at nowhere is no error.
    assert_eq!(client.read(CONFIG, 256, 0), Ok(Vec::new()));
    drop(client);
    assert_eq!(program.finish().code, Some(0));
}

#[test]
fn files_where_none_belong_are_refused() {
    let program = Program::start("n3000-net", &[]);
    let mut client = Client::agreed(&program);
    let counter = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let files: [BorrowedFd<'_>; 17] = [counter.as_fd(); 17];
    let map = body!(32_u32, 3_u32, 0_u64, 0_u64, 4096_u64);
    let arm = |count: u32| body!(20_u32, 0x24_u32, MSIX, 0_u32, count);
    for (command, body, count) in [
        (RESET, vec![], 1),
        (DMA_MAP, map.clone(), 2),
        // No file that could be mapped.
        (DMA_MAP, map, 1),
        (SET_IRQS, arm(2), 1),
        (SET_IRQS, arm(1), 2),
        // More than are ever taken.
        (SET_IRQS, arm(1), 17),
    ] {
        let refused = client.call_with(command, &body, &files[..count]);
        assert_eq!(refused, Err(Errno::INVAL), "{command} {count}");
        assert!(is_alive(&mut client));
    }
}

#[test]
fn replies_are_no_commands() {
    let program = Program::start("n3000-net", &[]);
    let mut client = Client::agreed(&program);
    for flags in [1, 2, 0xf] {
        client.send(RESET, flags, &[], &[]);
        assert_eq!(client.answer(RESET), Err(Errno::INVAL));
    }
    assert!(is_alive(&mut client));
}

#[test]
fn length_that_no_message_has_ends_the_conversation() {
    for size in [0_u32, 15, 1 << 20, u32::MAX] {
        let program = Program::start("n3000-net", &[]);
        let mut client = Client::connect(&program);
        client.send_bytes(&body!(40_u16, RESET, size, 0_u32, 0_u32), &[]);
        assert_eq!(client.answer(RESET), Err(Errno::MSGSIZE), "{size}");
        assert!(client.is_closed());
        let ended = program.finish();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.complained.contains(&format!("has {size} bytes")),
            "{ended:?}"
        );
    }
}

#[test]
fn message_that_breaks_off_ends_the_conversation() {
    let header = body!(40_u16, RESET, 100_u32, 0_u32, 0_u32);
    for bytes in [&header[..3], &header, &[&header[..], &[0; 50]].concat()] {
        let program = Program::start("n3000-net", &[]);
        let mut client = Client::connect(&program);
        client.send_bytes(bytes, &[]);
        drop(client);
        let ended = program.finish();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.complained.contains("does not arrive"), "{ended:?}");
    }
}

#[test]
fn version_comes_first_and_must_make_sense() {
    let program = Program::start("n3000-net", &[]);
    let mut client = Client::connect(&program);
    assert_eq!(client.call(RESET, &[]), Err(Errno::PROTO));
    assert_eq!(client.read(CONFIG, 0, 2), Err(Errno::PROTO));
    let version = |major: u16, data: &[u8]| [&body!(major, 0_u16), data].concat();
    for (body, expected) in [
        (vec![], Errno::INVAL),
        (vec![0; 3], Errno::INVAL),
        (version(0, b"{}"), Errno::INVAL),
        (version(0, b"\0"), Errno::INVAL),
        (version(0, b"{\0}\0"), Errno::INVAL),
        (version(0, b"[]\0"), Errno::INVAL),
        (version(0, b"{\"capabilities\":7}\0"), Errno::INVAL),
        (
            version(0, &[&[b'['; 4000][..], b"\0"].concat()),
            Errno::INVAL,
        ),
        (version(0, b"\xff\xff\0"), Errno::INVAL),
        (version(1, b"{}\0"), Errno::PROTONOSUPPORT),
    ] {
        assert_eq!(client.call(VERSION, &body), Err(expected), "{body:x?}");
    }
    client.agree();
    assert!(is_alive(&mut client));
}

#[test]
fn version_needs_no_data() {
    let program = Program::start("n3000-net", &[]);
    let mut client = Client::connect(&program);
    let version = client.call(VERSION, &body!(0_u16, 9_u16)).unwrap();
    assert_eq!(version[4..], *b"{\"capabilities\":{}}\0");
    assert!(is_alive(&mut client));
}

/// Numbers that look like chance and are the same each time (xorshift64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number that is small, at an edge, or anything.
    fn number(&mut self) -> u64 {
        let any = self.next();
        match any % 8 {
            0 => self.next(),
            1 => u64::MAX - self.next() % 8,
            2 => BASE + self.next() % MEMORY,
            3 => u64::from(u32::MAX) - self.next() % 8,
            _ => self.next() % 64,
        }
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.number().to_le_bytes()[0]).collect()
    }
}

#[test]
fn no_message_of_twenty_thousand_brings_the_card_down() {
    let program = Program::blk(16, &[]);
    let memory = Memory::new();
    let mut client = Client::agreed(&program);
    client.map(Some(memory.file()), BASE, MEMORY).unwrap();
    let mut chance = Chance(0x1f_c0_1f_c0);
    for _ in 0..20_000 {
        let choice = chance.next() % 16;
        let (command, body) = match choice {
            0 => {
                let len = chance.next() % 64;
                ((chance.next() % 20) as u16, chance.bytes(len))
            }
            1 => {
                let map = body!(
                    32_u32,
                    (chance.next() % 4) as u32,
                    chance.number(),
                    chance.number(),
                    chance.number()
                );
                (DMA_MAP, map)
            }
            2 => {
                let (address, size) = (chance.number(), chance.number());
                (DMA_UNMAP, body!(24_u32, 0_u32, address, size))
            }
            3 => {
                let [start, count] = [chance.number() as u32, chance.number() as u32];
                (
                    SET_IRQS,
                    body!(20_u32, (chance.next() % 64) as u32, MSIX, start, count),
                )
            }
            4 => (RESET, vec![]),
            // The rest goes to registers: the common configuration, doorbells, the block, and
            // elsewhere.
            _ => {
                let region = [0, 0, 0, 2, 4, CONFIG, 9][(chance.next() % 7) as usize];
                let offset = match chance.next() % 4 {
                    0 => 0x1000 + chance.next() % 32,
                    1 => chance.number(),
                    _ => chance.next() % 64,
                };
                let count = [1, 2, 4, 8, 3][(chance.next() % 5) as usize];
                let access = body!(offset, region, count as u32);
                if choice.is_multiple_of(2) {
                    (REGION_READ, access)
                } else {
                    (REGION_WRITE, [access, chance.bytes(count)].concat())
                }
            }
        };
        // An answer comes; which one does not matter here.
        let _ = client.call(command, &body);
    }
    assert!(client.read(CONFIG, 0, 2).is_ok());
    drop(client);
    assert_eq!(program.finish().code, Some(0));
}
