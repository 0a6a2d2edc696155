//! Each fault that a device can be told to have, and that it is over afterwards.

use std::sync::Arc;
use std::time::Duration;

use vdpa::device::Removed;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, OpError};
use vdpa_sim::{Faults, Flavour};
use virtio::DeviceStatus;
use virtq::{DeviceMemory, SharedMemory};

use crate::disk::{IN, OK, SECTOR, all, header, ram_disk, sim_blk};
use crate::world::{Rig, Variant, World, with_faults};

fn rig(world: &World, faults: &Arc<Faults>, variant: Variant) -> Rig {
    let ops = sim_blk(world, &ram_disk(), with_faults(variant, faults));
    let rig = world.drive(ops, variant, all(), &[0]);
    world.run();
    rig
}

fn offer(rig: &mut Rig) {
    rig.offer(0, &[&header(IN, 0)], &[SECTOR, 1]);
    rig.kick(0);
}

#[test]
fn the_mapping_of_choice_fails_and_nothing_has_changed() {
    for flavour in [Flavour::Incremental, Flavour::Whole] {
        let world = World::new();
        let faults = Arc::<Faults>::default();
        let variant = Variant {
            flavour,
            ..Variant::BEST
        };
        let mut rig = rig(&world, &faults, variant);
        let memory = SharedMemory::new(&world.kernel().dma(), 4096).unwrap();
        let mapped = |rig: &Rig| rig.attachment.with_table(0, |table| table.len()).unwrap();
        let map = |rig: &Rig, page: u64| {
            let last = rig.attachment.iova_range().last() - 4096 * page;
            let range = IovaRange::from_bounds(last - 4095, last).unwrap();
            let backing = Backing {
                memory: DeviceMemory::open(&memory).unwrap(),
                offset: 0,
            };
            rig.attachment.map(0, range, Permission::all(), backing)
        };
        let before = mapped(&rig);
        faults.fail_map(2);
        let results = [0, 1, 2, 3].map(|page| map(&rig, page));
        let failed = Err(OpError::OutOfResources);
        assert_eq!(results, [Ok(()), Ok(()), failed, Ok(())]);
        assert_eq!(mapped(&rig), before + 3);
        assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
    }
}

#[test]
fn completions_are_late() {
    for packed in [false, true] {
        let world = World::new();
        let faults = Arc::<Faults>::default();
        let variant = Variant {
            packed,
            ..Variant::BEST
        };
        let mut rig = rig(&world, &faults, variant);
        faults.delay_completions(Duration::from_millis(10));
        rig.arm();
        offer(&mut rig);
        world.run();
        world.platform.advance(Duration::from_millis(9));
        world.run();
        // It takes more meanwhile, which is shown together with the first.
        offer(&mut rig);
        world.run();
        assert!(rig.take(0).is_none() && rig.lines[0].event.count() == 0);
        assert_eq!(rig.count(0, "reads"), 2);
        world.platform.advance(Duration::from_millis(1));
        world.run();
        assert_eq!(rig.lines[0].event.count(), 1);
        assert_eq!((0..3).filter_map(|_| rig.take(0)).count(), 2);
        faults.delay_completions(Duration::ZERO);
        assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
    }
}

#[test]
fn a_device_with_late_completions_can_be_reset_and_removed() {
    let world = World::new();
    let faults = Arc::<Faults>::default();
    let mut rig = rig(&world, &faults, Variant::BEST);
    faults.delay_completions(Duration::MAX);
    offer(&mut rig);
    world.run();
    let device = rig.stop(&world);
    assert_eq!(world.unregister(&device), Removed::Clean);
    assert!(world.platform.tasks().is_empty());
    assert_eq!(world.platform.heap().outstanding(), 0);
}

#[test]
fn a_device_does_not_come_out_of_reset() {
    let world = World::new();
    let faults = Arc::<Faults>::default();
    let mut rig = rig(&world, &faults, Variant::BEST);
    faults.refuse_resets(2);
    let reset = || world.platform.block_on(rig.device.reset());
    assert_eq!(reset(), Err(OpError::Timeout));
    // It goes on using its memory.
    assert!(rig.status().contains(DeviceStatus::DRIVER_OK));
    offer(&mut rig);
    world.run();
    assert_eq!(rig.take(0).unwrap().status(), OK);
    let reset = || world.platform.block_on(rig.device.reset());
    assert_eq!((reset(), reset()), (Err(OpError::Timeout), Ok(())));
    assert!(rig.status().is_empty());
}

#[test]
fn a_device_that_does_not_reset_is_removed_nevertheless() {
    let world = World::new();
    let faults = Arc::<Faults>::default();
    let rig = rig(&world, &faults, Variant::BEST);
    faults.refuse_resets(u32::MAX);
    assert_eq!(world.unregister(&rig.device), Removed::Leaked { queues: 1 });
    assert!(world.platform.tasks().is_empty(), "its worker has ended");
}

#[test]
fn writes_are_short() {
    let world = World::new();
    let faults = Arc::<Faults>::default();
    let mut rig = rig(&world, &faults, Variant::BEST);
    faults.shorten_writes(2);
    let written = [(); 3].map(|()| rig.read(&world, 0, SECTOR).written);
    assert_eq!(written, [SECTOR, SECTOR, SECTOR + 1]);
}

#[test]
fn a_notification_is_not_heard() {
    let world = World::new();
    let faults = Arc::<Faults>::default();
    let mut rig = rig(&world, &faults, Variant::BEST);
    faults.drop_kicks(1);
    offer(&mut rig);
    world.run();
    assert!(rig.take(0).is_none());
    rig.lines[0].doorbell.ring(rig.lines[0].ring.place());
    world.run();
    assert_eq!(rig.take(0).unwrap().status(), OK);
}

#[test]
fn an_interrupt_has_no_reason() {
    let world = World::new();
    let faults = Arc::<Faults>::default();
    let mut rig = rig(&world, &faults, Variant::BEST);
    faults.interrupt_spuriously(1);
    rig.lines[0].doorbell.ring(0);
    world.run();
    assert_eq!(rig.lines[0].event.count(), 1);
    assert!(rig.take(0).is_none());
    rig.lines[0].doorbell.ring(0);
    world.run();
    assert_eq!(rig.lines[0].event.count(), 1);
    assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
}
