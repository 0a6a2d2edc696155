//! Devices come and go, in any state, and nothing is left of them.

use std::sync::Arc;

use vdpa::device::{DeviceKind, Removed, VdpaDeviceConfig};
use vdpa::dma::IsolationUnit;
use vdpa::ops::OpError;
use vdpa_sim::{CreateError, Faults, RamDisk, SimBlk, SimNet, SimNetConfig, Storage};
use virtio::DeviceStatus;

use crate::disk::{self, IN, OK, OUT, SECTOR, drive, header, ram_disk, sim_blk};
use crate::network;
use crate::world::{Variant, World, variants, with_faults};

#[test]
fn a_device_with_a_notification_under_way_is_removed() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        rig.offer(0, &[&header(OUT, 0), &[1; SECTOR]], &[1]);
        rig.kick(0);
        // Nothing has run since: the worker finds the bell rung and itself stopped.
        assert_eq!(world.unregister(&rig.device), Removed::Clean);
        assert!(world.platform.tasks().is_empty(), "{variant:?}");
        assert_eq!(disk.allocated(), 0);
        assert_eq!(rig.device.status(), Err(OpError::Gone));
        rig.lines[0].doorbell.ring(0);
        rig.hold.release();
        rig.lines.clear();
        drop(rig);
        assert_eq!(world.platform.heap().outstanding(), 0);
        assert_eq!(Arc::strong_count(&disk), 1, "the device is gone as a whole");
    }
}

#[test]
fn hundreds_of_devices_are_cheap_and_leave_nothing() {
    let world = World::new();
    let disk = RamDisk::new(1 << 30, Storage::Sparse).unwrap();
    for _ in 0..2 {
        let devices: Vec<_> = (0..512)
            .map(|number| {
                let ops = if number % 2 == 0 {
                    sim_blk(&world, &disk, Variant::BEST.sim())
                } else {
                    network::sim_net(&world, network::config(Variant::BEST)).1
                };
                world.register(ops)
            })
            .collect();
        world.run();
        assert_eq!(world.platform.tasks().len(), 512);
        assert_eq!(devices[511].node().name(), "vdpa511");
        assert_eq!(
            (disk.allocated(), world.platform.heap().outstanding()),
            (0, 0)
        );
        for device in &devices {
            assert_eq!(world.unregister(device), Removed::Clean);
        }
        drop(devices);
        assert!(world.platform.tasks().is_empty() && world.root.children().is_empty());
        assert_eq!(Arc::strong_count(&disk), 1);
    }
}

#[test]
fn a_device_that_never_comes_to_a_bus_ends() {
    let (world, disk) = (World::new(), ram_disk());
    let ops = sim_blk(&world, &disk, Variant::BEST.sim());
    assert_eq!(world.platform.tasks(), ["sim-blk"]);
    drop(ops);
    world.run();
    assert!(world.platform.tasks().is_empty());
    assert_eq!(Arc::strong_count(&disk), 1);
}

#[test]
fn a_device_that_the_bus_refuses_ends() {
    let (world, disk) = (World::new(), ram_disk());
    let config = || VdpaDeviceConfig {
        parent: Arc::clone(&world.root),
        dma: IsolationUnit::new(&world.root, None, None),
        platform: world.kernel(),
        kind: DeviceKind::Software,
        name: Some("disk".into()),
    };
    let register = || {
        let ops = sim_blk(&world, &disk, Variant::BEST.sim());
        world.platform.block_on(world.bus.register(ops, config()))
    };
    let first = register().unwrap();
    assert!(register().is_err());
    world.run();
    assert_eq!(world.platform.tasks().len(), 1);
    world.unregister(&first);
    assert!(world.platform.tasks().is_empty());
}

#[test]
fn whatever_step_of_making_a_device_fails_nothing_is_left() {
    let (world, disk) = (World::new(), ram_disk());
    let faults = Arc::<Faults>::default();
    let kernel = world.kernel();
    let blk = disk::config(&disk, with_faults(Variant::BEST, &faults));
    let net = || SimNetConfig {
        sim: with_faults(Variant::BEST, &faults),
        ..SimNetConfig::default()
    };
    let references = Arc::strong_count(&disk);
    for step in 0..3 {
        faults.fail_creation(step);
        let refused = SimBlk::new(&blk, &kernel).err();
        assert_eq!(refused, Some(CreateError::OutOfMemory), "step {step}");
        faults.fail_creation(step);
        let refused = SimNet::new(net(), &kernel).err();
        assert_eq!(refused, Some(CreateError::OutOfMemory), "step {step}");
        assert!(world.platform.tasks().is_empty());
        assert_eq!(Arc::strong_count(&disk), references);
    }
    faults.fail_creation(3);
    assert!(SimBlk::new(&blk, &kernel).is_ok(), "there are three steps");
}

#[test]
fn a_reset_forgets_what_the_driver_has_said_and_not_what_was_counted() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
        rig.arm();
        let interrupts = rig.lines[0].event.count();
        rig.offer(0, &[&header(IN, 0)], &[SECTOR, 1]);
        rig.kick(0);
        world.platform.block_on(rig.device.reset()).unwrap();
        rig.lines[0].doorbell.ring(0);
        world.run();
        assert_eq!(rig.count(0, "reads"), 1, "{variant:?}");
        assert_eq!(rig.lines[0].event.count(), interrupts);
        assert!(rig.status().is_empty());
        assert_eq!(rig.device.queue_ready(0), Ok(false));
        assert_eq!(rig.device.driver_features().unwrap(), vdpa::Features::EMPTY);
    }
}

#[test]
fn nothing_is_served_before_the_driver_is_ready() {
    let (world, disk) = (World::new(), ram_disk());
    let space = vdpa::dma::DmaSpace::new(&world.kernel());
    let device = world.register(sim_blk(&world, &disk, Variant::BEST.sim()));
    let rig = crate::world::Rig::prepare(&world, device, &space, Variant::BEST, disk::all().into());
    let mut rig = rig.with_ring(0);
    world.platform.block_on(async {
        rig.tell(&[]).await.unwrap();
        rig.offer(0, &[&header(IN, 0)], &[SECTOR, 1]);
        rig.kick(0);
    });
    world.run();
    assert!(rig.take(0).is_none());
    let ready = crate::world::agreed() | DeviceStatus::DRIVER_OK;
    world
        .platform
        .block_on(rig.device.set_status(ready))
        .unwrap();
    world.run();
    assert_eq!(rig.take(0).unwrap().status(), OK);
    // A queue may come later.
    let mut rig = rig.with_ring(1);
    let later = rig.lines.pop().unwrap();
    rig.lines.insert(0, later);
    world.platform.block_on(async {
        let first = rig.lines.pop().unwrap();
        rig.tell(&[]).await.unwrap();
        rig.lines.push(first);
    });
    assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
    assert_eq!(rig.count(1, "reads"), 1);
}
