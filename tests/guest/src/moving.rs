//! Devices that are moved to other parents, and to clients and back, while they are in use.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::time::Duration;

use embassy_futures::join::{join, join_array};
use guest_tests::disk::{SCRATCH, SECTOR_BYTES, SECTORS, WRITABLE, fill};
use vdpa::device::VdpaDevice;
use vdpa::iotlb::IovaRange;
use vdpa_sim::{AccessPlatform, Flavour, RamDisk, SimConfig, Storage};
use vhost_vdpa::vhost_client::Client;
use virtio_blk::Disk;

use crate::bench::Bench;
use crate::outcome::{Failure, Outcome};
use crate::parents::{NOBODY, flavour, sim_blk};
use crate::{ensure, guest_tests};

guest_tests![
    disk_moves_between_hardware_and_simulator_under_load,
    disk_moves_to_a_client_and_back_under_load,
];

/// Tasks that write, each to places of its own.
const WRITERS: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
/// What one of them writes at a time, in sectors.
const STEP: u64 = 8;
const STEP_BYTES: usize = 8 * SECTOR_BYTES;

/// What is written differs from what any other test leaves there.
const SEED: u64 = 0x5be0_cd19_137e_2179;

/// How often a disk is moved, in each direction.
const MOVES: usize = 4;

async fn disk_moves_between_hardware_and_simulator_under_load(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    let hardware = bench.vdpa_device(disk.name())?;
    // As large as the disk of the machine, with queues as long as the longest, and at home at the
    // platform's addresses.
    let medium = RamDisk::new(SECTORS * SECTOR_BYTES as u64, Storage::Sparse)?;
    let sim = SimConfig {
        access_platform: AccessPlatform::Optional,
        iova_range: IovaRange::ALL,
        queue_size: 1024,
        ..SimConfig::default()
    };
    let simulator = sim_blk(&medium, sim, bench.system.platform())?;
    let simulator = bench.register_unused(simulator).await?;
    let load = Load::new(&disk);
    let moves = async {
        for _ in 0..MOVES {
            load.progress(bench).await;
            relocate(bench, &hardware, &simulator).await?;
            load.progress(bench).await;
            relocate(bench, &simulator, &hardware).await?;
        }
        Ok::<(), Failure>(())
    };
    load.during(bench, moves).await?;
    load.check(&[&Medium::Driver(&disk), &Medium::Ram(&medium)])
        .await?;
    bench.unregister(&simulator).await
}

async fn disk_moves_to_a_client_and_back_under_load(bench: &Bench) -> Outcome {
    let medium = RamDisk::new(SECTORS * SECTOR_BYTES as u64, Storage::Sparse)?;
    for how in [Flavour::Incremental, Flavour::Whole] {
        let platform = bench.system.platform();
        let kernels = bench
            .register(sim_blk(&medium, flavour(how), platform)?)
            .await?;
        let clients = bench
            .register_unused(sim_blk(&medium, flavour(how), platform)?)
            .await?;
        let disk = bench.new_disk(&kernels).await?;
        let load = Load::new(&disk);
        let moves = async {
            for _ in 0..MOVES {
                load.progress(bench).await;
                let handle = bench.open(&clients).await?;
                let (virtio_vdpa, bus) = (bench.system.virtio_vdpa(), bench.system.vdpa());
                let client =
                    Client::take_over(handle, platform, virtio_vdpa, bus, &kernels).await?;
                load.progress(bench).await;
                client.hand_back(bus, &kernels).await?;
                client.detach().await;
            }
            Ok::<(), Failure>(())
        };
        load.during(bench, moves).await?;
        load.check(&[&Medium::Ram(&medium)]).await?;
        drop(disk);
        bench.unregister(&kernels).await?;
        bench.unregister(&clients).await?;
    }
    Ok(())
}

async fn relocate(bench: &Bench, from: &Arc<VdpaDevice>, to: &Arc<VdpaDevice>) -> Outcome {
    let (virtio_vdpa, bus) = (bench.system.virtio_vdpa(), bench.system.vdpa());
    virtio_vdpa.move_device(bus, from, to).await?;
    // Or the driver would claim it anew.
    bus.set_override(from, Some(NOBODY)).await;
    bus.set_override(to, None).await;
    Ok(())
}

/// Writers at work on a disk, each write with contents of its own.
struct Load<'a> {
    disk: &'a Disk,
    stopped: Cell<bool>,
    /// The version that was written last to each place.
    versions: RefCell<BTreeMap<u64, u64>>,
    next: Cell<u64>,
}

impl<'a> Load<'a> {
    fn new(disk: &'a Disk) -> Self {
        Self {
            disk,
            stopped: Cell::new(false),
            versions: RefCell::default(),
            next: Cell::new(0),
        }
    }

    /// Writes as long as `moves` takes, and a while longer.
    async fn during(&self, bench: &Bench, moves: impl Future<Output = Outcome>) -> Outcome {
        let moves = async {
            let moved = moves.await;
            if moved.is_ok() {
                self.progress(bench).await;
            }
            self.stopped.set(true);
            moved
        };
        let writers = WRITERS.map(|writer| Box::pin(self.write(writer)));
        let (ends, moved) = bench.patiently(join(join_array(writers), moves)).await?;
        moved?;
        ends.into_iter().collect()
    }

    async fn write(&self, writer: u64) -> Outcome {
        let places = (SCRATCH.end - SCRATCH.start) / STEP / WRITERS.len() as u64;
        let mut turn = 0;
        while !self.stopped.get() {
            let version = self.next.get();
            self.next.set(version + 1);
            let place = writer * places + turn % places;
            turn += 1;
            let sector = SCRATCH.start + place * STEP;
            let mut buffer = self.disk.buffer(STEP_BYTES)?;
            fill(&mut buffer, sector, SEED + version);
            self.disk.write(sector, buffer).await?;
            self.versions.borrow_mut().insert(sector, version);
        }
        Ok(())
    }

    /// Waits until a good many more writes have been made.
    async fn progress(&self, bench: &Bench) {
        let goal = self.next.get() + 100;
        while self.next.get() < goal {
            bench.sleep(Duration::from_millis(1)).await;
        }
    }

    /// What was written last to each place is on exactly one of the media.
    async fn check(&self, media: &[&Medium<'_>]) -> Outcome {
        let versions = self.versions.take();
        ensure!(versions.len() > 100, "hardly anything was written");
        for (sector, version) in versions {
            let mut wanted = vec![0; STEP_BYTES];
            fill(&mut wanted, sector, SEED + version);
            let mut copies = 0;
            for medium in media {
                copies += usize::from(medium.read(sector).await? == wanted);
            }
            ensure!(
                copies == 1,
                "write {version} to sector {sector} is on {copies} disks"
            );
        }
        Ok(())
    }
}

/// Where what was written may be.
enum Medium<'a> {
    Driver(&'a Disk),
    Ram(&'a RamDisk),
}

impl Medium<'_> {
    async fn read(&self, sector: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; STEP_BYTES];
        match self {
            Self::Driver(disk) => disk.read_into(sector, &mut bytes).await?,
            Self::Ram(disk) => disk.read(sector * SECTOR_BYTES as u64, &mut bytes)?,
        }
        Ok(bytes)
    }
}
