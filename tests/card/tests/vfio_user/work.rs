//! What a card is for, through the socket.

use std::fs;
use std::os::unix::net::UnixDatagram;

use rustix::io::Errno;

use crate::client::{
    CONFIG, Client, DEVICE_INFO, IRQ_INFO, MSIX, NO_REPLY, REGION_INFO, RESET, body,
};
use crate::driver::{BASE, Driver, MEMORY, Memory, Part, STATUS, Words};
use crate::program::Program;

const READ: u32 = 0;
const WRITE: u32 = 1;

/// The header of a request to a block device.
fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

/// A card that works, with its memory mapped.
fn bring_up<'a>(client: &'a mut Client, memory: &'a Memory, queues: &[u16]) -> Driver<'a> {
    client.map(Some(memory.file()), BASE, MEMORY).unwrap();
    let mut driver = Driver::new(client, memory, 3, Words::Whole);
    start(&mut driver, queues);
    driver
}

fn start(driver: &mut Driver<'_>, queues: &[u16]) {
    driver.begin();
    for &queue in queues {
        driver.queue(queue);
    }
    driver.go();
}

fn read_sector(driver: &mut Driver<'_>, sector: u64) -> Vec<u8> {
    let parts = [
        Part::For(&header(READ, sector)),
        Part::From(512),
        Part::From(1),
    ];
    driver.offer(0, &parts);
    driver.wait(0);
    let found = driver.memory.read(Driver::data(0) + 16, 513);
    assert_eq!(found[512], 0, "the status");
    found[..512].into()
}

#[test]
fn regions_and_interrupts_are_those_of_the_card() {
    let program = Program::start("n3000-net", &["--queue-pairs", "3", "--vectors", "5"]);
    let mut client = Client::agreed(&program);
    let info = client.call(DEVICE_INFO, &body!(16_u32, 0_u32, 0_u32, 0_u32));
    // PCI with reset, nine regions, five kinds of interrupts.
    assert_eq!(info.unwrap(), body!(16_u32, 3_u32, 9_u32, 5_u32));
    let mut size = |index: u32| {
        let query = body!(32_u32, 0_u32, index, 0_u32, 0_u64, 0_u64);
        let info = client.call(REGION_INFO, &query).unwrap();
        assert_eq!(info[8..12], index.to_ne_bytes());
        u64::from_ne_bytes(info[16..24].try_into().unwrap())
    };
    assert_eq!(size(CONFIG), 256);
    assert!([0, 2, 4].map(&mut size).iter().all(|size| *size >= 4096));
    assert_eq!([1, 3, 5, 6, 8].map(&mut size), [0; 5]);
    let mut count = |index: u32| {
        let info = client.call(IRQ_INFO, &body!(16_u32, 0_u32, index, 0_u32));
        u32::from_ne_bytes(info.unwrap()[12..].try_into().unwrap())
    };
    assert_eq!([0, 1, MSIX, 3, 4].map(&mut count), [0, 0, 5, 0, 0]);
    let config = client.read(CONFIG, 0, 64).unwrap();
    assert_eq!(config[..4], [0xf4, 0x1a, 0x41, 0x10]);
    assert_eq!(config[0x2c..0x30], [0x86, 0x80, 0x1a, 0]);
    drop(client);
    program.finish_well();
}

#[test]
fn client_of_the_protocols_crate_finds_the_card() {
    let program = Program::start("c5000x-net", &[]);
    let mut client = vfio_user::Client::new(&program.socket()).unwrap();
    assert_eq!(client.region(CONFIG).unwrap().size, 256);
    assert_eq!(client.get_irq_info(MSIX).unwrap().count, 6);
    let mut ids = [0; 4];
    client.region_read(CONFIG, 0, &mut ids).unwrap();
    assert_eq!(ids, [0xf4, 0x1a, 0x00, 0x10]);
    client.reset().unwrap();
    client.shutdown().unwrap();
    program.finish_well();
}

#[test]
fn sectors_are_read_and_written_and_interrupts_arrive() {
    let program = Program::blk(64, &[]);
    let memory = Memory::new();
    let mut client = Client::agreed(&program);
    let mut driver = bring_up(&mut client, &memory, &[0]);
    assert_eq!(read_sector(&mut driver, 7), [7; 512]);
    driver.offer(
        0,
        &[
            Part::For(&header(WRITE, 9)),
            Part::For(&[0xab; 512]),
            Part::From(1),
        ],
    );
    driver.wait(0);
    assert_eq!(read_sector(&mut driver, 9), [0xab; 512]);
    assert_eq!(driver.interrupts(2), 0, "queue 1 has no part in it");
    drop(client);
    let bytes = fs::read(program.image()).unwrap();
    assert_eq!(bytes[9 * 512..10 * 512], [0xab; 512]);
    program.finish_well();
}

#[test]
fn frames_that_are_sent_come_back() {
    let program = Program::start("n3000-net", &[]);
    let memory = Memory::new();
    let mut client = Client::agreed(&program);
    let mut driver = bring_up(&mut client, &memory, &[0, 1]);
    driver.offer(0, &[Part::From(2048)]);
    let frame: Vec<u8> = (0..100).collect();
    driver.offer(1, &[Part::For(&[&[0; 12][..], &frame].concat())]);
    driver.wait(1);
    driver.wait(0);
    assert_eq!(memory.read(Driver::data(0) + 12, 100), frame);
    drop(client);
    program.finish_well();
}

#[test]
fn frames_go_over_the_cable_both_ways() {
    let program = Program::start("c5000x-net", &["--cable", "own", "peer"]);
    let peer = UnixDatagram::bind(program.path("peer")).unwrap();
    let memory = Memory::new();
    let mut client = Client::agreed(&program);
    client.map(Some(memory.file()), BASE, MEMORY).unwrap();
    let mut driver = Driver::new(&mut client, &memory, 3, Words::Half);
    start(&mut driver, &[0, 1]);
    driver.offer(1, &[Part::For(&[&[0; 12][..], b"to the outside"].concat())]);
    driver.wait(1);
    let mut frame = [0; 64];
    let len = peer.recv(&mut frame).unwrap();
    assert_eq!(&frame[..len], b"to the outside");
    driver.offer(0, &[Part::From(2048)]);
    peer.send_to(b"from the outside", program.path("own"))
        .unwrap();
    driver.wait(0);
    assert_eq!(memory.read(Driver::data(0) + 12, 16), b"from the outside");
    drop(client);
    program.finish_well();
}

#[test]
fn memory_that_is_unmapped_while_a_queue_runs_is_not_touched_any_more() {
    let program = Program::blk(16, &[]);
    let memory = Memory::new();
    let mut client = Client::agreed(&program);
    let mut driver = bring_up(&mut client, &memory, &[0]);
    assert_eq!(read_sector(&mut driver, 3), [3; 512]);
    driver.client.unmap(BASE, MEMORY).unwrap();
    let before = memory.read(BASE, 1 << 16);
    driver.ring(0);
    assert_eq!(memory.read(BASE, 1 << 16), before);
    // It says that it cannot go on (VIRTIO 1.2, 2.1.2), and works again after a reset.
    driver.wait_for_vector(0);
    assert_eq!(driver.get::<1>(STATUS)[0] & 0x40, 0x40);
    driver
        .client
        .map(Some(memory.file()), BASE, MEMORY)
        .unwrap();
    start(&mut driver, &[0]);
    assert_eq!(read_sector(&mut driver, 5), [5; 512]);
}

#[test]
fn queues_outlive_a_change_of_other_memory() {
    let program = Program::blk(16, &[]);
    let memory = Memory::new();
    let other = Memory::new();
    let mut client = Client::agreed(&program);
    let mut driver = bring_up(&mut client, &memory, &[0]);
    for round in 0..20 {
        let address = 0x1000_0000 + round * MEMORY;
        driver
            .client
            .map(Some(other.file()), address, MEMORY)
            .unwrap();
        assert_eq!(
            read_sector(&mut driver, round % 16),
            [round as u8 % 16; 512]
        );
        driver.client.unmap(address, MEMORY).unwrap();
        assert_eq!(read_sector(&mut driver, 1), [1; 512]);
    }
    drop(client);
    program.finish_well();
}

#[test]
fn reset_of_the_function_stops_everything() {
    let program = Program::blk(16, &[]);
    let memory = Memory::new();
    let mut client = Client::agreed(&program);
    let mut driver = bring_up(&mut client, &memory, &[0]);
    assert_eq!(driver.client.call(RESET, &[]), Ok(Vec::new()));
    driver.client.write(CONFIG, 4, &[6, 0]).unwrap();
    assert_eq!(driver.get(STATUS), [0]);
    drop(client);
    assert_eq!(program.finish().code, Some(0));
}

#[test]
fn posted_writes_are_done_and_not_answered() {
    let program = Program::start("n3000-net", &[]);
    let mut client = Client::agreed(&program);
    let write = |offset: u64| [&body!(offset, CONFIG, 1_u32)[..], &[0x5a]].concat();
    client.send(10, NO_REPLY, &write(0x3c), &[]);
    // Not even a refusal.
    client.send(10, NO_REPLY, &write(256), &[]);
    assert_eq!(client.read(CONFIG, 0x3c, 1), Ok(vec![0x5a]));
}

#[test]
fn card_that_vanishes_reads_as_ones() {
    let mut program = Program::start("n3000-net", &[]);
    let mut client = Client::agreed(&program);
    assert_eq!(client.read(CONFIG, 0, 2), Ok(vec![0xf4, 0x1a]));
    program.order("flies away");
    program.order("vanishes");
    while client.read(CONFIG, 0, 2) != Ok(vec![0xff; 2]) {}
    assert_eq!(client.read(0, 0, 4), Ok(vec![0xff; 4]));
    assert_eq!(client.write(0, 0x14, &[1]), Ok(()));
    drop(client);
    let ended = program.finish();
    assert_eq!(ended.code, Some(0));
    assert!(
        ended.complained.contains("flies away: unknown"),
        "{ended:?}"
    );
}

#[test]
fn reset_never_ends_and_vectors_are_refused_on_request() {
    let program = Program::start(
        "n3000-net",
        &[
            "--misbehave",
            "never-leaves-reset",
            "--misbehave",
            "refuses-vectors",
        ],
    );
    let memory = Memory::new();
    let mut client = Client::agreed(&program);
    let mut driver = Driver::new(&mut client, &memory, 1, Words::Whole);
    driver.set(STATUS, &[1]);
    driver.set(STATUS, &[0]);
    for _ in 0..100 {
        assert_ne!(driver.get(STATUS), [0]);
    }
    driver.set(0x10, &0_u16.to_le_bytes());
    assert_eq!(driver.get(0x10), [0xff, 0xff]);
}

#[test]
fn memory_without_a_file_is_known_and_out_of_reach() {
    let program = Program::blk(16, &[]);
    let memory = Memory::new();
    let mut client = Client::agreed(&program);
    client.map(None, BASE, MEMORY).unwrap();
    assert_eq!(client.map(None, BASE, 4096), Err(Errno::EXIST));
    let mut driver = Driver::new(&mut client, &memory, 3, Words::Whole);
    start(&mut driver, &[0]);
    driver.ring(0);
    driver.wait_for_vector(0);
    drop(client);
    let ended = program.finish();
    assert!(
        ended.complained.contains("memory-backend-memfd"),
        "{ended:?}"
    );
}
