//! Moves that fail, at every step, and what is left: the old device at work, and nothing of the new
//! one.

use std::sync::Arc;
use std::time::Duration;

use vdpa::Features;
use vdpa::device::Removal;
use vdpa::ops::{Abilities, OpError};
use vdpa::testing::{FakeParent, Resets};
use vdpa_sim::{Faults, SimBlk, SimConfig};
use virtio_bus::MoveError;

use crate::slow_disk::slow_disk;
use crate::world::{World, counted, ram_disk, sim_anywhere, sim_with};
use crate::writers::Writers;

const NEW: Abilities = Abilities::SUSPEND
    .union(Abilities::RESUME)
    .union(Abilities::QUEUE_STATE);

fn features() -> Features {
    Features::from(virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX)
}

#[test]
fn whatever_step_of_the_new_device_fails_the_old_one_goes_on() {
    for old_abilities in [Abilities::empty(), NEW, Abilities::SUSPEND] {
        for step in 0.. {
            if !check_fault(step, old_abilities, Side::New) {
                assert!(step >= 11, "a device is taken up in more steps than {step}");
                break;
            }
        }
    }
}

#[test]
fn whatever_step_of_the_old_device_fails_the_driver_is_served_by_one_of_them_or_told() {
    for old_abilities in [Abilities::empty(), NEW, Abilities::SUSPEND] {
        for step in 0.. {
            if !check_fault(step, old_abilities, Side::Old) {
                assert!(step >= 1, "a device is stopped in more steps than {step}");
                break;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Old,
    New,
}

/// Moves a disk; the fallible operation that comes after `step` others fails. Returns whether it
/// came to that.
fn check_fault(step: usize, old_abilities: Abilities, side: Side) -> bool {
    let what = format!("{side:?}, {old_abilities:?}, step {step}");
    let w = World::new();
    let medium = ram_disk();
    let happened = w.platform.block_on(async {
        let old = slow_disk(&w, &medium, features(), old_abilities);
        let from = w.add(old.ops()).await;
        let disk = w.made.disks.take().unwrap();
        let new = slow_disk(&w, &medium, features(), NEW);
        let to = w.add_spare(new.ops()).await;
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        let faulty = if side == Side::Old { &old } else { &new };
        faulty.fail_after(step, OpError::Broken);
        let result = w.move_device(&from, &to).await;
        let happened = !faulty.take_fault();
        let is_served = w.virtio_device().check() == Ok(());
        assert!(happened || result.is_ok(), "{what}: {result:?}");
        match result {
            Ok(()) => assert!(is_at_rest(&old), "{what}"),
            Err(error) => {
                assert!(is_at_rest(&new), "{what}: {error}");
                assert!(is_served || side == Side::Old, "{what}: {error}");
            }
        }
        if is_served {
            writers.progress(&w).await;
            writers.finish(&w, &medium).await;
        } else {
            w.kernel.sleep(Duration::from_millis(10)).await;
            assert_eq!(writers.running(), 0, "{what}: the writers have been told");
        }
        drop((disk, old, new));
        for device in [from, to] {
            w.vdpa.unregister(&device, Removal::Orderly).await;
        }
        happened
    });
    assert_eq!(w.memory(), 0, "{what}");
    happened
}

fn is_at_rest(parent: &FakeParent) -> bool {
    parent.status().is_empty() && !parent.is_ready(0)
}

#[test]
fn mappings_that_the_new_device_refuses_do_not_stop_the_old_one() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let from = w.add(w.sim_blk(&medium, &SimConfig::default())).await;
        let disk = w.made.disks.take().unwrap();
        let faults = Arc::<Faults>::default();
        let sim = SimConfig {
            faults: Arc::clone(&faults),
            ..SimConfig::default()
        };
        let to = w.add_spare(w.sim_blk(&medium, &sim)).await;
        let mut refused = 0;
        for skip in 0.. {
            faults.fail_map(skip);
            let result = w.move_device(&from, &to).await;
            faults.fail_map(u32::MAX);
            let buffer = disk.buffer(512).unwrap();
            disk.write(u64::from(skip), buffer).await.unwrap();
            match result {
                Ok(()) => break,
                Err(error) => assert_eq!(error, MoveError::To(OpError::OutOfResources)),
            }
            refused += 1;
            assert_eq!(counted(&from, 0, "writes"), refused);
        }
        assert!(refused > 1, "there are several mappings");
        assert_eq!(counted(&to, 0, "writes"), 1);
    });
}

#[test]
fn what_does_not_suit_is_found_out_before_anything_is_stopped() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let sim = sim_with(SimBlk::features());
        let from = w.add(w.sim_blk(&medium, &sim)).await;
        let disk = w.made.disks.take().unwrap();
        let fewer = SimBlk::features().difference(virtio::F::INDIRECT_DESC.into());
        let smaller = SimConfig {
            queue_size: 64,
            ..SimConfig::default()
        };
        let cases = [
            (w.sim_net(&SimConfig::default()), MoveError::OtherType),
            (
                w.sim_blk(&medium, &sim_with(fewer)),
                MoveError::LacksFeatures,
            ),
            (w.sim_blk(&medium, &smaller), MoveError::LacksQueues),
        ];
        let writers = Writers::start(&w, &disk);
        for (ops, expected) in cases {
            let to = w.add_spare(ops).await;
            assert_eq!(w.move_device(&from, &to).await, Err(expected));
            assert_eq!(w.vdpa.driver_of(&to), None);
            assert!(to.status().unwrap().is_empty());
        }
        let taken = w.add(w.sim_blk(&medium, &sim)).await;
        let refused = w.move_device(&from, &taken).await;
        assert_eq!(refused, Err(MoveError::NotFree));
        w.vdpa.set_override(&taken, Some("nobody")).await;
        let refused = w.move_device(&taken, &from).await;
        assert_eq!(refused, Err(MoveError::NotRunning), "it has no driver");
        writers.progress(&w).await;
        writers.finish(&w, &medium).await;
    });
}

#[test]
fn a_driver_that_does_not_rewind_is_found_out_before_anything_is_stopped() {
    let w = World::new();
    w.platform.block_on(async {
        let sim = sim_with(virtio::F::VERSION_1.into());
        let sim = SimConfig {
            features: sim.features,
            ..sim_anywhere()
        };
        let from = w.add(w.sim_net(&sim)).await;
        // Nobody polls the interface, so nobody answers.
        let interface = w.made.nets.take().unwrap();
        let config = [0x02, 0, 0, 0, 0, 1, 1, 0, 1, 0, 220, 5];
        let old = FakeParent::with_traits(
            &w.platform,
            1,
            Features::EMPTY,
            &[256, 256, 64],
            &config,
            vdpa::testing::Traits {
                abilities: Abilities::empty(),
                ..vdpa::testing::Traits::default()
            },
        );
        let to = w.add_spare(old.ops()).await;
        let refused = w.move_device(&from, &to).await;
        assert_eq!(refused, Err(MoveError::DriverSilent));
        assert_eq!(w.virtio_device().check(), Ok(()));
        assert!(!from.is_suspended().unwrap());
        drop(interface);
    });
}

#[test]
fn a_new_device_that_does_not_reset_leaves_the_old_one_alone() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let old = slow_disk(&w, &medium, features(), NEW);
        let from = w.add(old.ops()).await;
        let disk = w.made.disks.take().unwrap();
        let new = slow_disk(&w, &medium, features(), NEW);
        let to = w.add_spare(new.ops()).await;
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        new.set_resets(Resets::Never);
        let refused = w.move_device(&from, &to).await;
        assert_eq!(refused, Err(MoveError::To(OpError::Timeout)));
        writers.progress(&w).await;
        writers.finish(&w, &medium).await;
    });
}

#[test]
fn an_old_device_that_does_not_reset_is_broken_and_the_new_one_is_not_started() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let old = slow_disk(&w, &medium, features(), NEW);
        let from = w.add(old.ops()).await;
        let disk = w.made.disks.take().unwrap();
        let new = slow_disk(&w, &medium, features(), NEW);
        let to = w.add_spare(new.ops()).await;
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        old.set_resets(Resets::Never);
        let refused = w.move_device(&from, &to).await;
        assert_eq!(refused, Err(MoveError::From(OpError::Timeout)));
        assert_eq!(w.virtio_device().check(), Err(OpError::Broken));
        assert!(new.status().is_empty(), "both would use the same memory");
        w.kernel.sleep(Duration::from_millis(10)).await;
        assert_eq!(writers.running(), 0, "the writers have been told");
    });
}

#[test]
fn a_device_that_is_taken_away_during_a_move_ends_its_requests() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let from = w.add(w.sim_blk(&medium, &SimConfig::default())).await;
        let disk = w.made.disks.take().unwrap();
        let to = w.add_spare(w.sim_blk(&medium, &SimConfig::default())).await;
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        let moving = w.move_device(&from, &to);
        let removal = w.vdpa.unregister(&from, crate::world::surprise());
        let (result, _) = embassy_futures::join::join(moving, removal).await;
        match result {
            Ok(()) => writers.progress(&w).await,
            Err(_) => {
                w.kernel.sleep(Duration::from_millis(10)).await;
                assert_eq!(writers.running(), 0);
                assert!(w.virtio.devices().is_empty());
            }
        }
        assert_eq!(w.vdpa.devices().len(), 1);
    });
}
