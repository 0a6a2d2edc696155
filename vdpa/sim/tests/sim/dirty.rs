//! The log of the pages that a simulated device writes, against the bytes that have changed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use vdpa::dirty::{DirtyPages, LogError, PAGE_SIZE};
use vdpa::iotlb::IovaRange;
use vdpa::ops::{Backing, DirtyLog, OpError};
use vdpa_sim::{SimConfig, SimNetConfig};
use virtq::{DeviceMemory, DmaAddr, SharedMemory};

use crate::disk::{self, IN, OUT, SECTOR, header, ram_disk, sim_blk};
use crate::network::{self, BROADCAST, BUFFER, RX, TX};
use crate::world::{Rig, UNTOUCHED, Variant, World, variants};

/// Addresses for which a bitmap is short.
const FIRST: u64 = 1 << 20;
const ADDRESSES: u64 = 1 << 28;

fn low(variant: Variant) -> SimConfig {
    SimConfig {
        iova_range: IovaRange::new(FIRST, ADDRESSES).unwrap(),
        ..variant.sim()
    }
}

type Pages = BTreeSet<u64>;

/// A device, its bitmap, and what is known of it.
struct Logged {
    world: World,
    rig: Rig,
    memory: SharedMemory,
    log: DirtyLog,
    /// What has been written and logged, and not taken yet.
    expected: Pages,
    running: bool,
}

impl Logged {
    fn disk(variant: Variant) -> Self {
        let (world, disk) = (World::new(), ram_disk());
        let ops = sim_blk(&world, &disk, low(variant));
        let rig = world.drive(ops, variant, disk::all(), &[0]);
        Self::new(world, rig)
    }

    fn network(variant: Variant) -> Self {
        let world = World::new();
        let config = SimNetConfig {
            sim: low(variant),
            ..network::config(variant)
        };
        let (_, ops) = network::sim_net(&world, config);
        let rig = world.drive(ops, variant, network::all(), &[0, 1, 2]);
        Self::new(world, rig)
    }

    fn new(world: World, rig: Rig) -> Self {
        let len = DirtyLog::covering(DmaAddr(0), FIRST + ADDRESSES - 1).len;
        let memory = SharedMemory::new(&rig.dma, usize::try_from(len).unwrap()).unwrap();
        let base = memory.addr();
        Self {
            world,
            rig,
            memory,
            log: DirtyLog { base, len },
            expected: Pages::new(),
            running: false,
        }
    }

    fn start(&mut self) {
        // SAFETY: the bitmap is memory of its own.
        let started = unsafe { self.rig.attachment.start_dirty_log(self.log) };
        let expected = if self.running {
            Err(LogError::Running)
        } else {
            Ok(())
        };
        assert_eq!(self.world.platform.block_on(started), expected);
        self.running = true;
    }

    fn stop(&mut self) {
        let stopped = self.rig.attachment.stop_dirty_log();
        let stopped = self.world.platform.block_on(stopped);
        if self.running {
            assert_eq!(stopped, Ok(()));
            self.expected.extend(rings(&self.rig));
        } else {
            assert_eq!(stopped, Err(LogError::NotRunning));
        }
        self.running = false;
    }

    fn suspend_and_resume(&mut self) {
        let device = &self.rig.device;
        self.world.platform.block_on(async {
            device.suspend().await.unwrap();
            device.resume().await.unwrap();
        });
        if self.running {
            self.expected.extend(rings(&self.rig));
        }
    }

    /// What has come back since the last call, as far as it was logged.
    fn collect(&mut self) {
        self.world.run();
        let written = changed(&mut self.rig);
        if self.running {
            self.expected.extend(written);
        }
    }

    /// Takes the log: all that was written is there, and nothing else.
    fn check(&mut self) {
        let mut taken = DirtyPages::new();
        if self.running {
            self.rig.attachment.take_dirty_pages(&mut taken).unwrap();
            self.expected.extend(rings(&self.rig));
        } else {
            taken.take(&self.memory, 0, self.log.len).unwrap();
        }
        let taken: Pages = taken.iter().collect();
        assert_eq!(taken, std::mem::take(&mut self.expected));
    }

    /// Has sectors read into two buffers.
    fn read(&mut self, sectors: usize, cut: usize) {
        let len = sectors * SECTOR;
        let cut = cut.min(len - 1).max(1);
        let parts = [cut, len - cut, 1];
        self.rig.offer(0, &[&header(IN, 0)], &parts);
        self.rig.kick(0);
    }

    fn write(&mut self, sectors: usize) {
        let data = vec![7; sectors * SECTOR];
        self.rig.offer(0, &[&header(OUT, 0), &data], &[1]);
        self.rig.kick(0);
    }
}

/// The pages of the bytes that a device has changed in what it gives back.
fn changed(rig: &mut Rig) -> Pages {
    let mut pages = Pages::new();
    for line in &mut rig.lines {
        while let Some(used) = line.ring.take().unwrap() {
            for part in &used.chain.writable {
                let bytes = (part.addr().0..).zip(part.iter());
                let bytes = bytes.filter(|(_, byte)| **byte != UNTOUCHED);
                pages.extend(bytes.map(|(addr, _)| addr / PAGE_SIZE));
            }
        }
    }
    pages
}

/// The pages that a device writes of its rings.
fn rings(rig: &Rig) -> Pages {
    let mut pages = DirtyPages::new();
    for line in &rig.lines {
        let (addresses, size) = (line.ring.addresses(), u64::from(line.ring.size()));
        if rig.variant.packed {
            pages.insert(addresses.descriptor, 16 * size);
            pages.insert(addresses.device, 4);
        } else {
            pages.insert(addresses.device, 6 + 8 * size);
        }
    }
    pages.iter().collect()
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many sectors, the first buffer of so many bytes.
    Read(usize, usize),
    Write(usize),
    /// A frame of so many bytes.
    Frame(usize),
    Collect,
    Start,
    Stop,
    Rest,
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..40, 1usize..20_000).prop_map(|(sectors, cut)| Step::Read(sectors, cut)),
        2 => (1usize..4).prop_map(Step::Write),
        4 => (60usize..1514).prop_map(Step::Frame),
        3 => Just(Step::Collect),
        2 => Just(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::Rest),
        2 => Just(Step::Check),
    ]
}

fn run(mut logged: Logged, steps: &[Step]) {
    let is_disk = logged.rig.lines.len() == 1;
    for step in steps {
        match *step {
            Step::Read(sectors, cut) if is_disk => logged.read(sectors, cut),
            Step::Write(sectors) if is_disk => logged.write(sectors),
            Step::Frame(len) if !is_disk => {
                logged.rig.offer(RX, &[], &[BUFFER]);
                logged.rig.kick(RX);
                logged.rig.send(TX, &network::frame(BROADCAST, len, 7));
            }
            Step::Read(..) | Step::Write(_) | Step::Frame(_) => continue,
            // Whatever is on its way is written before the log changes.
            Step::Collect => {}
            Step::Start | Step::Stop | Step::Rest | Step::Check => logged.collect(),
        }
        match step {
            Step::Start => logged.start(),
            Step::Stop => logged.stop(),
            Step::Rest => logged.suspend_and_resume(),
            Step::Check => logged.check(),
            // The rings of a test have room for a few.
            _ => logged.collect(),
        }
    }
    logged.collect();
    logged.check();
    let Logged {
        world, rig, memory, ..
    } = logged;
    assert_eq!(rig.count(0, "dma faults"), 0);
    drop(memory);
    let device = rig.stop(&world);
    world.unregister(&device);
    drop(device);
    assert_eq!(world.platform.heap().outstanding(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { ProptestConfig::default().cases / 8 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_is_what_a_disk_and_a_card_have_written_while_it_ran(
        variant in 0usize..8,
        steps in vec(step(), 1..40),
    ) {
        let variant = variants().nth(variant).unwrap();
        run(Logged::disk(variant), &steps);
        run(Logged::network(variant), &steps);
    }
}

#[test]
fn what_is_written_before_a_fault_is_logged() {
    for variant in variants() {
        let mut logged = Logged::disk(variant);
        logged.start();
        let (rig, world) = (&mut logged.rig, &logged.world);
        rig.offer(0, &[&header(IN, 0)], &[4096, 4096, 1]);
        let last = rig.attachment.with_table(0, |table| {
            let mappings = table.iter();
            mappings
                .filter(|mapping| mapping.range.len() == 4096)
                .map(|mapping| mapping.range)
                .collect::<Vec<_>>()
        });
        // The second of the two pages that were allocated last.
        let second = *last.unwrap().last().unwrap();
        let taken = rig.attachment.unmap(0, second).unwrap();
        assert_eq!(taken, 4096);
        rig.kick(0);
        world.run();
        let used = rig.lines[0].ring.take().unwrap().unwrap();
        let parts = &used.chain.writable;
        assert_eq!(
            parts[1].addr().0,
            second.first(),
            "the test knows its memory"
        );
        assert!(parts[0].iter().all(|byte| *byte == 0) && parts[1][0] == UNTOUCHED);
        let page = |part: usize| parts[part].addr().0 / PAGE_SIZE;
        logged.expected.extend([page(0), page(2)]);
        drop(used);
        logged.check();
    }
}

#[test]
fn a_bitmap_that_is_taken_away_is_not_written_and_the_device_goes_on() {
    for variant in variants() {
        let mut logged = Logged::disk(variant);
        logged.start();
        let DirtyLog { base, len } = logged.log;
        let bitmap = IovaRange::new(base.0, len).unwrap();
        let attachment = &logged.rig.attachment;
        attachment.unmap(0, bitmap).unwrap();
        logged.read(1, 1);
        logged.world.run();
        assert!(!changed(&mut logged.rig).is_empty(), "it is served");
        assert!(logged.rig.count(0, "dma faults") > 0);
        logged.suspend_and_resume();
        // The rings are marked by the owner of the memory.
        logged.check();
    }
}

#[test]
fn a_queue_that_goes_on_elsewhere_is_logged_there() {
    let logged = Logged::disk(Variant::SPLIT);
    let Logged {
        world,
        rig,
        memory,
        log,
        ..
    } = &logged;
    world.platform.block_on(async {
        // SAFETY: the bitmap is memory of its own.
        unsafe { rig.attachment.start_dirty_log(*log) }
            .await
            .unwrap();
        rig.device.suspend().await.unwrap();
    });
    let mut taken = DirtyPages::new();
    taken.take(memory, 0, log.len).unwrap();
    assert_eq!(taken.iter().collect::<Pages>(), rings(rig));
    // The used ring of the queue from here on lies where the other half of its memory is.
    let address = vdpa::ops::QueueAddress {
        descriptor: rig.lines[0].ring.addresses().descriptor,
        driver: rig.lines[0].ring.addresses().driver,
        device: DmaAddr(FIRST + ADDRESSES / 2),
    };
    let elsewhere = SharedMemory::new(&vdpa::Platform::dma(&*world.platform), 4096).unwrap();
    let range = IovaRange::new(address.device.0, 4096).unwrap();
    let backing = Backing {
        memory: DeviceMemory::open(&elsewhere).unwrap(),
        offset: 0,
    };
    let all = vdpa::iotlb::Permission::all();
    rig.attachment.map(0, range, all, backing).unwrap();
    // SAFETY: no chain is in flight, and the memory is open.
    unsafe { rig.device.set_queue_address(0, address) }.unwrap();
    world.platform.block_on(async {
        rig.device.resume().await.unwrap();
        rig.device.suspend().await.unwrap();
    });
    let mut taken = DirtyPages::new();
    taken.take(memory, 0, log.len).unwrap();
    assert_eq!(
        taken.iter().collect::<Vec<_>>(),
        [range.first() / PAGE_SIZE]
    );
}

#[test]
fn a_log_can_be_had_in_every_state_of_a_device_that_has_agreed() {
    let world = World::new();
    let device = world.register(sim_blk(&world, &ram_disk(), low(Variant::BEST)));
    let space = vdpa::dma::DmaSpace::new(&world.kernel());
    let features = disk::all().into();
    let rig = Rig::prepare(&world, device, &space, Variant::BEST, features);
    let mut logged = Logged::new(world, rig.with_ring(0));
    logged.start();
    logged.rig.start(&logged.world);
    logged.read(9, 4096);
    logged.collect();
    logged.check();
    logged
        .world
        .platform
        .block_on(logged.rig.device.reset())
        .unwrap();
    logged.running = false;
    logged.expected.extend(rings(&logged.rig));
    logged.check();
    // SAFETY: the bitmap is memory of its own.
    let again = unsafe { logged.rig.attachment.start_dirty_log(logged.log) };
    let again = logged.world.platform.block_on(again);
    assert_eq!(again, Err(LogError::Device(OpError::WrongState)));
}

/// Taking the log while a device on another processor goes on misses no page.
#[test]
fn no_page_is_missed_while_the_device_runs() {
    let rounds = if cfg!(miri) { 3 } else { 200 };
    for variant in [Variant::BEST, Variant::SPLIT] {
        let mut logged = Logged::disk(variant);
        logged.start();
        let Logged {
            world,
            rig,
            memory,
            log,
            ..
        } = &mut logged;
        let stop = AtomicBool::new(false);
        let (mut taken, mut written) = (DirtyPages::new(), Pages::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    world.run();
                }
            });
            for round in 0..rounds {
                rig.offer(0, &[&header(IN, 0)], &[SECTOR, 8 * SECTOR, 1]);
                rig.kick(0);
                if round % 3 == 0 {
                    rig.attachment.take_dirty_pages(&mut taken).unwrap();
                }
                if round % 8 == 7 {
                    let pages = loop {
                        let pages = changed(rig);
                        if !pages.is_empty() {
                            break pages;
                        }
                    };
                    // What is with the driver again is in the log, if not before then now.
                    rig.attachment.take_dirty_pages(&mut taken).unwrap();
                    let missed = pages.iter().find(|page| !taken.contains(**page));
                    assert_eq!(missed, None, "round {round}");
                    written.extend(pages);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        world.run();
        written.extend(changed(rig));
        written.extend(rings(rig));
        world.platform.block_on(rig.device.suspend()).unwrap();
        taken.take(memory, 0, log.len).unwrap();
        assert_eq!(taken.iter().collect::<Pages>(), written);
    }
}
