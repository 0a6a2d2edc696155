//! Whatever happens to servers and their caches, what was acknowledged is there.

use nbd_client::{Command, Durability, Holes};
use proptest::prelude::*;

use crate::server::{Lie, Options};
use crate::world::World;

const BLOCK: usize = 512;
const BLOCKS: usize = 64;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Writes a number to blocks that no other request is at.
    Write(usize, usize, bool),
    Zero(usize, usize),
    Read(usize, usize),
    Flush,
    Exchange(usize),
    Serve(usize, usize),
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let extent = || (0..BLOCKS, 1..12usize);
    prop_oneof![
        4 => (extent(), any::<bool>()).prop_map(|((at, len), durable)| Step::Write(at, len, durable)),
        1 => extent().prop_map(|(at, len)| Step::Zero(at, len)),
        3 => extent().prop_map(|(at, len)| Step::Read(at, len)),
        1 => Just(Step::Flush),
        8 => (1..3000usize).prop_map(Step::Exchange),
        8 => (any::<usize>(), any::<usize>()).prop_map(|(which, cut)| Step::Serve(which, cut)),
        1 => Just(Step::Kill),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let flags = prop_oneof![Just(0x6d), Just(0x65), Just(0x45)];
    (any::<bool>(), any::<bool>(), flags).prop_map(|(structured, go, flags)| Options {
        structured,
        go,
        flags,
        max: 2048,
        lie: Lie::None,
    })
}

/// A request that is under way: which blocks, and what they hold afterwards.
struct Open {
    number: usize,
    blocks: std::ops::Range<usize>,
    /// `None` is a read.
    value: Option<u8>,
}

struct Case {
    world: World,
    model: Vec<u8>,
    open: Vec<Open>,
    value: u8,
}

impl Case {
    fn extent(&self, at: usize, len: usize) -> Option<(std::ops::Range<usize>, u64, u64)> {
        let blocks = at..(at + len).min(BLOCKS);
        let overlaps =
            |open: &Open| open.blocks.start < blocks.end && blocks.start < open.blocks.end;
        let free = !self.open.iter().any(overlaps) && self.world.client.has_room();
        let (offset, len) = (blocks.start * BLOCK, blocks.len() * BLOCK);
        free.then_some((blocks, offset as u64, len as u64))
    }

    fn submit(&mut self, command: Command, blocks: std::ops::Range<usize>, value: Option<u8>) {
        let buffer = vec![value.unwrap_or(0xee); blocks.len() * BLOCK];
        let number = self.world.submit(command, buffer);
        self.open.push(Open {
            number,
            blocks,
            value,
        });
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Write(at, len, durable) => {
                let Some((blocks, offset, len)) = self.extent(at, len) else {
                    return;
                };
                self.value = self.value.wrapping_add(1).max(1);
                let durability = if durable {
                    Durability::Durable
                } else {
                    Durability::Cached
                };
                let command = Command::Write {
                    offset,
                    len,
                    durability,
                };
                self.submit(command, blocks, Some(self.value));
            }
            Step::Zero(at, len) => {
                let Some((blocks, offset, len)) = self.extent(at, len) else {
                    return;
                };
                let command = Command::WriteZeroes {
                    offset,
                    len,
                    durability: Durability::Cached,
                    holes: Holes::Allowed,
                };
                self.submit(command, blocks, Some(0));
            }
            Step::Read(at, len) => {
                if let Some((blocks, offset, len)) = self.extent(at, len) {
                    self.submit(Command::Read { offset, len }, blocks, None);
                }
            }
            Step::Flush => {
                if self.world.client.has_room() {
                    self.submit(Command::Flush, 0..0, None);
                }
            }
            Step::Exchange(room) => {
                self.world.exchange(room).unwrap();
            }
            Step::Serve(which, cut) => {
                let World { server, disk, .. } = &mut self.world;
                if let Some(server) = server {
                    server.serve(which, cut, disk);
                }
            }
            Step::Kill => {
                self.world.kill(None);
                self.world.connect();
            }
        }
        self.look();
    }

    /// What has ended, has ended well, and reads what was there.
    fn look(&mut self) {
        let Self {
            world, model, open, ..
        } = self;
        open.retain(|request| {
            let Some(outcome) = world.requests.outcomes[request.number] else {
                return true;
            };
            assert_eq!(outcome, Ok(()));
            let bytes = &world.requests.buffers[request.number];
            for (block, found) in request.blocks.clone().zip(bytes.chunks(BLOCK)) {
                let expected = *request.value.insert_into(&mut model[block]);
                assert!(found.iter().all(|byte| *byte == expected) || request.value == Some(0));
            }
            false
        });
    }
}

/// A write changes the model; a read does not.
trait InsertInto {
    fn insert_into<'m>(&self, place: &'m mut u8) -> &'m u8;
}

impl InsertInto for Option<u8> {
    fn insert_into<'m>(&self, place: &'m mut u8) -> &'m u8 {
        if let Some(value) = self {
            *place = *value;
        }
        place
    }
}

/// Does the steps, lets another server come, and looks at the disk.
fn try_out(options: Options, steps: &[Step]) {
    let mut case = Case {
        world: World::new(BLOCKS * BLOCK, options),
        model: vec![0; BLOCKS],
        open: Vec::new(),
        value: 0,
    };
    case.world.connect();
    case.world.settle().unwrap();
    for step in steps {
        case.apply(*step);
    }
    case.world.kill(None);
    case.world.connect();
    case.world.settle().unwrap();
    case.look();
    assert!(case.open.is_empty());
    assert!(case.world.client.is_idle());
    for (block, found) in case.world.disk.cache.chunks(BLOCK).enumerate() {
        let expected = case.model[block];
        assert!(found.iter().all(|byte| *byte == expected), "block {block}");
    }
}

/// The zeroes are answered, and the write of the same block after them is not, when the server dies.
#[test]
fn a_write_is_not_overtaken_by_what_was_acknowledged_before_it() {
    let options = Options {
        structured: false,
        go: false,
        flags: 0x6d,
        max: 2048,
        lie: Lie::None,
    };
    let steps = [
        Step::Zero(10, 11),
        Step::Exchange(28),
        Step::Serve(0, 0),
        Step::Exchange(16),
        Step::Write(1, 10, true),
        Step::Exchange(1158),
        Step::Exchange(2149),
        Step::Exchange(1841),
        Step::Serve(0, 0),
        Step::Exchange(16),
    ];
    try_out(options, &steps);
}

proptest! {
    #[test]
    fn what_was_acknowledged_survives_servers(
        options in options(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        try_out(options, &steps);
    }
}
