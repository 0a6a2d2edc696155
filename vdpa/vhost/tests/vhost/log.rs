//! The log of dirty pages as a client has it.

use vdpa::dirty::DirtyPages;
use vdpa::iotlb::Permission;
use vdpa::keeper::hold;
use vdpa::ops::{Abilities, DirtyLog, OpError};
use vdpa::testing::{Resets, Traits, Translation};
use vhost_vdpa::{IotlbMessage, Reply, Request, VhostError, VhostHandle};
use virtq::{DmaAddr, SharedMemory};

use crate::world::{
    FIRST, LAST, World, agree, invalidate, reset, set_up, somewhere, start, translating, update,
};

/// The bitmap of a client: its second page.
const BASE: u64 = FIRST + 0x1000;
const LEN: u64 = 0x100;

fn log() -> DirtyLog {
    DirtyLog {
        base: DmaAddr(BASE),
        len: LEN,
    }
}

fn client(world: &World) -> (VhostHandle, SharedMemory) {
    let handle = world.owner();
    let memory = world.memory(0x2000);
    handle.message(update(&memory, FIRST)).unwrap();
    (handle, memory)
}

fn pages(memory: &SharedMemory) -> Vec<u64> {
    let mut pages = DirtyPages::new();
    pages.take(memory, 0x1000, LEN).unwrap();
    pages.iter().collect()
}

/// The page of the used ring of a queue that lies [`somewhere`].
fn used() -> u64 {
    somewhere().device.0 / 0x1000
}

#[test]
fn a_client_starts_a_log_and_finds_the_rings_in_it() {
    let world = World::new();
    let (handle, memory) = client(&world);
    world.run(start(&handle)).unwrap();
    world.log();
    assert_eq!(
        world.run(handle.request(Request::StartLog(log()))),
        Ok(Reply::Done)
    );
    assert_eq!(world.log(), [format!("start_dirty_log({BASE:#x}, {LEN})")]);
    world.run(handle.suspend()).unwrap();
    assert_eq!(pages(&memory), [used()]);
    world.run(handle.resume()).unwrap();
    world.run(handle.disable_vring(0)).unwrap();
    assert_eq!(pages(&memory), [used()]);
    world.log();
    assert_eq!(world.run(handle.request(Request::StopLog)), Ok(Reply::Done));
    assert_eq!(world.log(), ["stop_dirty_log"]);
    assert_eq!(pages(&memory), []);
}

#[test]
fn each_reason_against_a_log_is_told() {
    let world = World::new();
    let handle = world.open();
    let begin = |log| world.run(handle.start_log(log));
    let end = || world.run(handle.stop_log());
    assert_eq!(begin(log()), Err(VhostError::NoOwner));
    assert_eq!(end(), Err(VhostError::NoOwner));
    handle.set_owner().unwrap();
    assert_eq!(begin(log()), Err(VhostError::WrongState), "too early");
    world.run(agree(&handle, vdpa::Features::EMPTY)).unwrap();
    assert_eq!(begin(log()), Err(VhostError::NotReachable), "not mapped");
    assert_eq!(end(), Err(VhostError::WrongState), "there is none");
    let memory = world.memory(0x2000);
    handle.message(update(&memory, FIRST)).unwrap();
    let at = |base, len| {
        begin(DirtyLog {
            base: DmaAddr(base),
            len,
        })
    };
    assert_eq!(at(BASE, 0), Err(VhostError::Invalid));
    assert_eq!(at(BASE + 1, 1), Err(VhostError::Invalid));
    assert_eq!(at(u64::MAX - 0xfff, 0x1001), Err(VhostError::Invalid));
    assert_eq!(at(BASE, 0x1001), Err(VhostError::NotReachable));
    assert_eq!(
        begin(DirtyLog::covering(DmaAddr(BASE), LAST)),
        Err(VhostError::NotReachable)
    );
    let readable = IotlbMessage::Update {
        asid: 0,
        iova: FIRST + 0x10_0000,
        size: 0x1000,
        memory: virtq::DeviceMemory::open(&memory).unwrap(),
        offset: 0,
        permission: Permission::READ,
    };
    handle.message(readable).unwrap();
    assert_eq!(at(FIRST + 0x10_0000, 1), Err(VhostError::NotReachable));
    world.parent.fail_after(0, OpError::Broken);
    assert_eq!(begin(log()), Err(VhostError::Broken));
    assert_eq!(begin(log()), Ok(()));
    assert_eq!(begin(log()), Err(VhostError::Busy));
    world.parent.fail_after(0, OpError::Timeout);
    assert_eq!(end(), Err(VhostError::Timeout));
    assert_eq!(end(), Ok(()));
}

#[test]
fn a_device_without_a_log_says_so() {
    let world = World::with(Traits {
        abilities: Abilities::all() - Abilities::DIRTY_LOG,
        ..translating(Translation::Whole)
    });
    let (handle, _) = client(&world);
    world.run(start(&handle)).unwrap();
    assert_eq!(
        world.run(handle.start_log(log())),
        Err(VhostError::Unsupported)
    );
    assert_eq!(world.run(handle.stop_log()), Err(VhostError::Unsupported));
}

#[test]
fn a_reset_ends_the_log_and_marks_what_had_been_written() {
    let world = World::new();
    let (handle, memory) = client(&world);
    world.run(start(&handle)).unwrap();
    world.run(handle.start_log(log())).unwrap();
    world.run(handle.set_status(reset())).unwrap();
    assert_eq!(pages(&memory), [used()]);
    assert_eq!(world.run(handle.stop_log()), Err(VhostError::WrongState));
    world.run(agree(&handle, vdpa::Features::EMPTY)).unwrap();
    world.run(set_up(&handle, 0)).unwrap();
    assert_eq!(world.run(handle.start_log(log())), Ok(()));
}

#[test]
fn a_bitmap_that_the_client_has_let_go_lives_as_long_as_its_log() {
    for ends_with in ["stop", "close"] {
        let world = World::new();
        let (handle, memory) = client(&world);
        world.run(start(&handle)).unwrap();
        world.run(handle.start_log(log())).unwrap();
        handle.message(invalidate(FIRST, 0x2000)).unwrap();
        drop(memory);
        let heap = world.platform.heap();
        assert_eq!(heap.outstanding(), 0x2000);
        if ends_with == "stop" {
            world.run(handle.stop_log()).unwrap();
            assert_eq!(heap.outstanding(), 0);
        }
        world.run(handle.close()).unwrap();
        assert_eq!(heap.outstanding(), 0);
    }
}

#[test]
fn a_device_that_does_not_come_to_rest_keeps_the_bitmap() {
    let world = World::new();
    let (handle, memory) = client(&world);
    world.run(start(&handle)).unwrap();
    world.run(handle.start_log(log())).unwrap();
    drop(memory);
    world.parent.set_resets(Resets::Never);
    assert_eq!(world.run(handle.close()), Err(VhostError::Timeout));
    assert_eq!(world.platform.heap().outstanding(), 0x2000);
    world.parent.set_resets(Resets::Promptly);
    let device = world.run(hold(&world.bus, &world.device)).unwrap();
    world.run(device.reset()).unwrap();
    assert_eq!(world.platform.heap().outstanding(), 0);
}
