//! A device whose worker runs on another processor than its driver.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use vdpa::device::VdpaClaim;
use vdpa::platform::Callback;
use virtio::DeviceStatus;

use crate::disk::{IN, OK, SECTOR, all, drive, header, ram_disk, sim_blk};
use crate::world::{Rig, Variant, World, agreed};

/// Runs the tasks of a world on another thread while `act` runs on this one.
fn beside<R>(world: &World, act: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                world.run();
                hint::spin_loop();
            }
        });
        let result = act();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn offer(rig: &mut Rig, count: usize) {
    for _ in 0..count {
        rig.offer(0, &[&header(IN, 0)], &[SECTOR, 1]);
        rig.kick(0);
    }
}

fn take_all(rig: &mut Rig) -> usize {
    let mut taken = 0;
    while let Some(answer) = rig.take(0) {
        assert_eq!(answer.status(), OK);
        taken += 1;
    }
    taken
}

#[test]
fn a_suspended_device_is_at_rest_at_once() {
    for variant in [Variant::BEST, Variant::SPLIT] {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        beside(&world, || {
            for round in 0..50 {
                offer(&mut rig, 15);
                world.platform.block_on(async {
                    rig.device.suspend().await.unwrap();
                    rig.attachment.settle(0).await.unwrap();
                });
                let served = rig.count(0, "reads");
                let state = world.platform.block_on(rig.device.queue_state(0)).unwrap();
                let mut done = take_all(&mut rig);
                assert_eq!(take_all(&mut rig), 0, "round {round}");
                assert_eq!(
                    world.platform.block_on(rig.device.queue_state(0)).unwrap(),
                    state
                );
                assert_eq!(rig.count(0, "reads"), served);
                world.platform.block_on(rig.device.resume()).unwrap();
                while done < 15 {
                    done += take_all(&mut rig);
                }
            }
        });
        assert_eq!(rig.count(0, "reads"), 50 * 15);
        assert_eq!(rig.count(0, "dma faults"), 0);
    }
}

#[test]
fn after_a_reset_no_interrupt_is_under_way() {
    let (world, disk) = (World::new(), ram_disk());
    let device = world.register(sim_blk(&world, &disk, Variant::BEST.sim()));
    let under_way = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU32::new(0));
    beside(&world, || {
        for _ in 0..40 {
            let space = vdpa::dma::DmaSpace::new(&world.kernel());
            let device = Arc::clone(&device);
            let rig = Rig::prepare(&world, device, &space, Variant::BEST, all().into());
            let mut rig = rig.with_ring(0);
            world.platform.block_on(rig.tell(&[])).unwrap();
            let (flag, counter) = (Arc::clone(&under_way), Arc::clone(&count));
            let slow = Callback::new(move || {
                flag.store(true, Ordering::SeqCst);
                for _ in 0..2000 {
                    hint::spin_loop();
                }
                counter.fetch_add(1, Ordering::SeqCst);
                flag.store(false, Ordering::SeqCst);
            });
            world.platform.block_on(async {
                rig.device.stop_queue(0).await.unwrap();
                rig.device.set_queue_callback(0, Some(slow)).unwrap();
                rig.device.start_queue(0).await.unwrap();
                let status = agreed() | DeviceStatus::DRIVER_OK;
                rig.device.set_status(status).await.unwrap();
            });
            rig.hold.hold();
            let before = count.load(Ordering::SeqCst);
            offer(&mut rig, 15);
            // As often as not the reset comes in the middle of it.
            while count.load(Ordering::SeqCst) == before && !under_way.load(Ordering::SeqCst) {
                hint::spin_loop();
            }
            world.platform.block_on(rig.device.reset()).unwrap();
            let after = count.load(Ordering::SeqCst);
            assert!(!under_way.load(Ordering::SeqCst));
            std::thread::yield_now();
            assert_eq!(count.load(Ordering::SeqCst), after);
            rig.stop(&world);
        }
    });
}

#[test]
fn a_callback_may_ask_the_device_anything() {
    let (world, disk) = (World::new(), ram_disk());
    let space = vdpa::dma::DmaSpace::new(&world.kernel());
    let device = world.register(sim_blk(&world, &disk, Variant::BEST.sim()));
    let rig = Rig::prepare(&world, device, &space, Variant::BEST, all().into());
    let mut rig = rig.with_ring(0);
    let asked = Arc::new(AtomicU32::new(0));
    let ask = |device: &Weak<VdpaClaim>| {
        let (device, asked) = (Weak::clone(device), Arc::clone(&asked));
        Callback::new(move || {
            let device = device.upgrade().unwrap();
            let mut capacity = [0; 8];
            // Each of these takes the device's lock.
            device.read_config(0, &mut capacity).unwrap();
            device.queue_statistics(0).unwrap();
            assert!(device.status().unwrap().contains(DeviceStatus::DRIVER_OK));
            device.doorbell(0).unwrap().ring(0);
            asked.fetch_add(1, Ordering::Relaxed);
        })
    };
    let device = Arc::downgrade(&rig.device);
    world.platform.block_on(async {
        rig.tell(&[]).await.unwrap();
        rig.device.stop_queue(0).await.unwrap();
        rig.device
            .set_queue_callback(0, Some(ask(&device)))
            .unwrap();
        rig.device.start_queue(0).await.unwrap();
        rig.device.set_config_callback(Some(ask(&device))).unwrap();
        let status = agreed() | DeviceStatus::DRIVER_OK;
        rig.device.set_status(status).await.unwrap();
    });
    offer(&mut rig, 1);
    world.run();
    assert_eq!(take_all(&mut rig), 1);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // The queue breaks, and the device says so.
    rig.attachment.reset_map(0).unwrap();
    rig.lines[0].doorbell.ring(0);
    world.run();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
