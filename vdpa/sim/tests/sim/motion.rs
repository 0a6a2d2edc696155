//! Suspended devices, and queues that go on in another device.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use vdpa::device::Attachment;
use vdpa::dma::{Owner, Trust};
use vdpa::ops::{OpError, QueueState};
use vdpa_sim::{Faults, Flavour};
use virtio::DeviceStatus;

use crate::disk::{IN, OK, OUT, SECTOR, all, drive, header, ram_disk, sim_blk};
use crate::network::{self, OWN, RX, TX};
use crate::world::{Rig, Variant, World, negotiate, variants, with_faults};

impl Rig {
    fn suspend(&self, world: &World) {
        world.platform.block_on(self.device.suspend()).unwrap();
    }

    fn resume(&self, world: &World) {
        world.platform.block_on(self.device.resume()).unwrap();
    }

    fn states(&self, world: &World) -> Vec<QueueState> {
        let lines = self.lines.iter();
        let states = lines.map(|line| self.device.queue_state(line.index));
        states
            .map(|state| world.platform.block_on(state).unwrap())
            .collect()
    }

    /// Stops the device and lets another one go on where it stood.
    fn move_to(self, world: &World, device: Arc<vdpa::device::VdpaClaim>) -> Self {
        self.suspend(world);
        let states = self.states(world);
        let mut moved = world.platform.block_on(async {
            self.device.reset().await.unwrap();
            device.reset().await.unwrap();
            let attachment = device.attach(Owner::Kernel, Trust::Isolated).unwrap();
            self.space
                .attach(Arc::<Attachment>::clone(&attachment))
                .unwrap();
            self.attachment.detach().await.unwrap();
            negotiate(&device, self.features).await.unwrap();
            Self {
                device,
                attachment,
                ..self
            }
        });
        for line in &mut moved.lines {
            line.doorbell = moved.device.doorbell(line.index).unwrap();
        }
        world.platform.block_on(moved.set_up(&states)).unwrap();
        for line in &moved.lines {
            // The other device may not have heard the last notification.
            line.doorbell.ring(line.ring.place());
        }
        moved
    }
}

#[test]
fn a_suspended_device_serves_nothing_and_forgets_nothing() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
        rig.suspend(&world);
        let states = rig.states(&world);
        for _ in 0..3 {
            rig.offer(0, &[&header(IN, 0)], &[SECTOR, 1]);
            rig.kick(0);
        }
        rig.lines[0].doorbell.ring(0);
        world.run();
        assert!(rig.take(0).is_none(), "{variant:?}");
        assert_eq!(rig.states(&world), states);
        assert_eq!(rig.count(0, "reads"), 1);
        let mut capacity = [0; 8];
        rig.device.read_config(0, &mut capacity).unwrap();
        assert!(rig.status().contains(DeviceStatus::DRIVER_OK));
        rig.resume(&world);
        world.run();
        assert_eq!((0..4).filter_map(|_| rig.take(0)).count(), 3);
    }
}

#[test]
fn what_was_rung_while_suspended_is_forgotten_by_a_reset() {
    let (world, disk) = (World::new(), ram_disk());
    let mut rig = drive(&world, &disk, Variant::BEST);
    rig.suspend(&world);
    rig.offer(0, &[&header(OUT, 0), &[1; SECTOR]], &[1]);
    rig.kick(0);
    world.platform.block_on(rig.device.reset()).unwrap();
    world.run();
    assert_eq!((rig.count(0, "writes"), disk.allocated()), (0, 0));
}

#[test]
fn what_is_done_is_shown_before_a_device_is_at_rest() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let faults = Arc::<Faults>::default();
        let ops = sim_blk(&world, &disk, with_faults(variant, &faults));
        let mut rig = world.drive(ops, variant, all(), &[0]);
        faults.delay_completions(Duration::from_secs(3600));
        rig.offer(0, &[&header(OUT, 0), &[1; SECTOR]], &[1]);
        rig.arm();
        rig.kick(0);
        world.run();
        assert!(rig.take(0).is_none());
        assert_eq!(
            world.platform.block_on(rig.device.queue_state(0)),
            Err(OpError::WrongState),
            "it runs"
        );
        rig.suspend(&world);
        assert_eq!(rig.lines[0].event.count(), 1);
        assert_eq!(rig.take(0).unwrap().status(), OK);
        let state = rig.lines[0].ring.state().unwrap().into();
        assert_eq!(rig.states(&world), [state], "{variant:?}");
    }
}

#[test]
fn a_queue_is_stopped_and_started_where_it_stood() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        for round in 0..100 {
            assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
            if round % 7 == 0 {
                world.platform.block_on(async {
                    rig.device.stop_queue(0).await.unwrap();
                    assert_eq!(rig.device.queue_ready(0), Ok(false));
                    let state = rig.lines[0].ring.state().unwrap().into();
                    assert_eq!(
                        world.platform.block_on(rig.device.queue_state(0)),
                        Ok(state),
                        "{variant:?}"
                    );
                    rig.device.start_queue(0).await.unwrap();
                });
            }
        }
    }
}

#[test]
fn a_state_of_another_format_or_with_something_in_flight_is_refused() {
    let (world, disk) = (World::new(), ram_disk());
    let device = world.register(sim_blk(&world, &disk, Variant::BEST.sim()));
    let packed = |used_index, used_wrap| QueueState::Packed {
        avail_index: 5,
        avail_wrap: true,
        used_index,
        used_wrap,
    };
    world.platform.block_on(async {
        device.reset().await.unwrap();
        let features = Variant::BEST.features();
        negotiate(&device, features).await.unwrap();
        device.set_queue_size(0, 64).unwrap();
        for state in [packed(4, true), packed(5, false)] {
            assert_eq!(device.set_queue_state(0, state), Err(OpError::Invalid));
        }
        let split = QueueState::Split { avail_index: 1 };
        assert_eq!(device.set_queue_state(0, split), Err(OpError::Invalid));
        device.set_queue_state(0, packed(5, true)).unwrap();
    });
}

#[test]
fn frames_that_wait_go_on_in_another_card() {
    for variant in variants() {
        let world = World::new();
        let (_, mut rig) =
            network::drive(&world, network::config(variant), variant, network::all());
        for number in 0..20 {
            rig.send(TX, &network::frame(OWN, 60, number));
        }
        rig.offer_buffers(RX, 5);
        world.run();
        for number in 0..5 {
            assert_eq!(rig.receive(RX), Some(network::frame(OWN, 60, number)));
        }
        // Five have been sent; none of the others is lost in the card.
        let (_, ops) = network::sim_net(&world, network::config(variant));
        let mut rig = rig.move_to(&world, world.register(ops));
        rig.offer_buffers(RX, 20);
        world.run();
        for number in 5..20 {
            let sent = network::frame(OWN, 60, number);
            assert_eq!(rig.receive(RX), Some(sent), "{variant:?}");
        }
        assert_eq!(rig.receive(RX), None);
        assert_eq!((0..21).filter_map(|_| rig.take(TX)).count(), 20);
        assert_eq!(rig.count(0, "rx packets"), 15);
    }
}

/// What happens to a disk in use.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many writes are offered.
    Offer(u8),
    /// The device is told.
    Kick,
    /// The device works as long as it has something to do.
    Run,
    /// The driver takes what is done.
    Take,
    /// Another device goes on.
    Move,
    /// The device is suspended and resumed.
    Pause,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..8u8).prop_map(Step::Offer),
        3 => Just(Step::Kick),
        3 => Just(Step::Run),
        2 => Just(Step::Take),
        2 => Just(Step::Move),
        1 => Just(Step::Pause),
    ]
}

/// Writes under way: each has a sector of its own.
#[derive(Default)]
struct Writes {
    offered: u64,
    done: u64,
}

impl Writes {
    fn offer(&mut self, rig: &mut Rig) {
        if rig.lines[0].ring.free() >= 3 {
            let number = self.offered;
            let bytes = [number.to_le_bytes(); SECTOR / 8].concat();
            rig.offer(0, &[&header(OUT, number), &bytes], &[1]);
            self.offered += 1;
        }
    }

    fn take(&mut self, rig: &mut Rig) {
        while let Some(answer) = rig.take(0) {
            assert_eq!(answer.status(), OK);
            self.done += 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    #[test]
    fn nothing_is_lost_or_doubled_when_a_disk_moves(
        steps in vec(step(), 1..60),
        packed: bool,
        delayed: bool,
    ) {
        let (world, disk) = (World::new(), ram_disk());
        let variant = Variant { packed, ..Variant::BEST };
        let faults = Arc::<Faults>::default();
        if delayed {
            faults.delay_completions(Duration::from_millis(1));
        }
        // Devices of both flavours, in turn.
        let spare = |flavour| {
            let variant = Variant { flavour, ..variant };
            world.register(sim_blk(&world, &disk, with_faults(variant, &faults)))
        };
        let devices = [spare(Flavour::Incremental), spare(Flavour::Whole)];
        let ops = sim_blk(&world, &disk, with_faults(variant, &faults));
        let mut rig = world.drive(ops, variant, all(), &[0]);
        let first = Arc::clone(&rig.device);
        let mut moves = 0;
        let mut writes = Writes::default();
        for step in steps {
            match step {
                Step::Offer(count) => (0..count).for_each(|_| writes.offer(&mut rig)),
                Step::Kick => drop(rig.kick(0)),
                Step::Run => world.run(),
                Step::Take => writes.take(&mut rig),
                Step::Move => {
                    rig = rig.move_to(&world, Arc::clone(&devices[moves % 2]));
                    moves += 1;
                }
                Step::Pause => {
                    rig.suspend(&world);
                    rig.resume(&world);
                }
            }
        }
        rig.kick(0);
        world.run();
        world.platform.advance(Duration::from_secs(1));
        world.run();
        writes.take(&mut rig);
        prop_assert_eq!(writes.done, writes.offered);
        let served: u64 = devices.iter().chain([&first]).map(|device| {
            let counters: BTreeMap<_, _> = device.queue_statistics(0).unwrap().into_iter().collect();
            assert_eq!((counters["errors"], counters["dma faults"]), (0, 0));
            counters["writes"]
        }).sum();
        prop_assert_eq!(served, writes.offered);
        for number in 0..writes.offered {
            let mut sector = [0; SECTOR];
            disk.read(number * SECTOR as u64, &mut sector).unwrap();
            prop_assert!(sector.chunks(8).all(|part| part == number.to_le_bytes()));
        }
        rig.stop(&world);
        for device in devices.iter().chain([&first]) {
            world.unregister(device);
        }
    }
}
