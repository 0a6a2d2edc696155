//! The same drivers in a client of vhost: over simulators and a fake, in one or several clients,
//! moved between both ways, and cut off.

use std::sync::Arc;
use std::time::Duration;

use vdpa::device::{Removal, Removed, VdpaDevice};
use vdpa::ops::Abilities;
use vdpa::testing::{FakeParent, Traits, Translation};
use vdpa::{Features, VdpaOps};
use vdpa_sim::{Flavour, SimBlk, SimConfig};
use vhost_vdpa::vhost_client::{Client, ClientOptions};
use vhost_vdpa::{OpenOptions, VhostHandle};
use virtio_bus::VirtioBus;

use crate::traffic::Traffic;
use crate::world::{Made, World, ram_disk, sim_with};
use crate::writers::Writers;

/// A client with a virtio bus of its own.
struct Task {
    client: Client,
    made: Made,
    bus: Arc<VirtioBus>,
}

impl Task {
    async fn start(w: &World, handle: VhostHandle) -> Self {
        let made = Made::none();
        let bus = VirtioBus::new("client");
        made.add_drivers(&bus).await;
        let options = ClientOptions::default();
        let client = Client::attach(handle, &w.kernel, &bus, options).await;
        Self {
            client: client.unwrap(),
            made,
            bus,
        }
    }
}

async fn open(w: &World, ops: Box<dyn VdpaOps>) -> (Arc<VdpaDevice>, VhostHandle) {
    w.add_open(ops).await
}

fn flavours() -> [SimConfig; 2] {
    [Flavour::Incremental, Flavour::Whole].map(|flavour| SimConfig {
        flavour,
        ..SimConfig::default()
    })
}

#[test]
fn a_disk_works_over_vhost_and_leaves_nothing_behind() {
    for sim in flavours() {
        let w = World::new();
        let medium = ram_disk();
        w.platform.block_on(async {
            let (device, handle) = open(&w, w.sim_blk(&medium, &sim)).await;
            let task = Task::start(&w, handle).await;
            let disk = task.made.disks.take().unwrap();
            let path = task.client.device().node().path();
            assert!(path.ends_with("vhost-vdpa-0 -> virtio0"), "{path}");
            let writers = Writers::start(&w, &disk);
            writers.progress(&w).await;
            writers.finish(&w, &medium).await;
            drop(disk);
            task.client.detach().await;
            assert!(task.bus.devices().is_empty());
            assert!(device.status().unwrap().is_empty());
            let again = w.vhost.open("vhost-vdpa-0", OpenOptions::default()).await;
            again.unwrap().close().await.unwrap();
            w.vdpa.unregister(&device, Removal::Orderly).await;
        });
        assert_eq!(w.memory(), 0);
        assert_eq!(w.platform.tasks(), [""; 0]);
    }
}

#[test]
fn an_interface_works_over_vhost() {
    for sim in flavours() {
        let w = World::new();
        w.platform.block_on(async {
            let (_, handle) = open(&w, w.sim_net(&sim)).await;
            let task = Task::start(&w, handle).await;
            let traffic = Traffic::start(&w, task.made.nets.take().unwrap());
            traffic.progress(&w).await;
            traffic.finish(&w).await;
            task.client.detach().await;
        });
    }
}

#[test]
fn the_arena_is_one_mapping_and_the_only_one() {
    let w = World::new();
    let traits = Traits {
        translation: Translation::Incremental,
        ..Traits::default()
    };
    let config = [0; 60];
    let parent = FakeParent::with_traits(&w.platform, 2, Features::EMPTY, &[64], &config, traits);
    w.platform.block_on(async {
        let (_, handle) = open(&w, parent.ops()).await;
        let bus = VirtioBus::new("client");
        let options = ClientOptions { arena: 1 << 20 };
        let client = Client::attach(handle, &w.kernel, &bus, options).await;
        let client = client.unwrap();
        let buffers =
            [4096, 64, 8192].map(|len| virtq::DmaBuffer::new(&client.device().dma(), len).unwrap());
        let mapped = parent.mapped(0);
        let [(range, _)] = mapped[..] else {
            panic!("{mapped:?}");
        };
        assert_eq!(range.len(), 1 << 20);
        for buffer in &buffers {
            assert!((range.first()..=range.last()).contains(&buffer.addr().0));
        }
        drop(buffers);
        client.detach().await;
        assert_eq!(parent.mapped(0), []);
    });
    assert_eq!(w.memory(), 0);
}

#[test]
fn clients_do_not_disturb_each_other() {
    let w = World::new();
    let media = [ram_disk(), ram_disk()];
    w.platform.block_on(async {
        let mut tasks = Vec::new();
        for medium in &media {
            let (device, handle) = open(&w, w.sim_blk(medium, &SimConfig::default())).await;
            let task = Task::start(&w, handle).await;
            let disk = task.made.disks.take().unwrap();
            let writers = Writers::start(&w, &disk);
            tasks.push((device, task, writers));
        }
        let (device, task, cut_off) = tasks.pop().unwrap();
        let (_, other, writers) = tasks.pop().unwrap();
        cut_off.progress(&w).await;
        w.vdpa.unregister(&device, crate::world::surprise()).await;
        writers.progress(&w).await;
        assert_eq!(cut_off.running(), 0, "they have been told");
        assert!(task.bus.devices().is_empty());
        writers.finish(&w, &media[0]).await;
        other.client.detach().await;
    });
}

#[test]
fn a_device_that_is_taken_away_under_load_ends_the_requests_and_frees_everything() {
    for removal in [Removal::Orderly, crate::world::surprise()] {
        let w = World::new();
        let medium = ram_disk();
        w.platform.block_on(async {
            let (device, handle) = open(&w, w.sim_blk(&medium, &SimConfig::default())).await;
            let task = Task::start(&w, handle).await;
            let disk = task.made.disks.take().unwrap();
            let writers = Writers::start(&w, &disk);
            writers.progress(&w).await;
            let removed = w.vdpa.unregister(&device, removal).await;
            assert_eq!(removed, Removed::Clean);
            task.client.ended().await;
            w.kernel.sleep(Duration::from_millis(10)).await;
            assert_eq!(writers.running(), 0, "{removal:?}");
            assert!(task.bus.devices().is_empty(), "{removal:?}");
            drop((disk, task));
        });
        w.platform.run_until_stalled();
        assert_eq!(w.memory(), 0, "{removal:?}");
    }
}

#[test]
fn a_client_that_is_dropped_is_detached_by_its_task() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let (device, handle) = open(&w, w.sim_blk(&medium, &SimConfig::default())).await;
        let Task { client, made, bus } = Task::start(&w, handle).await;
        let disk = made.disks.take().unwrap();
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        drop(client);
        w.kernel.sleep(Duration::from_millis(10)).await;
        assert_eq!(writers.running(), 0, "they have been told");
        assert!(bus.devices().is_empty());
        assert!(device.status().unwrap().is_empty());
    });
}

#[test]
fn a_disk_goes_from_virtio_to_vhost_and_back_under_load() {
    for features in [
        SimBlk::features(),
        SimBlk::features().difference(virtio::F::RING_PACKED.into()),
    ] {
        let w = World::new();
        let medium = ram_disk();
        let sim = sim_with(features);
        w.platform.block_on(async {
            let kernels = w.add(w.sim_blk(&medium, &sim)).await;
            let disk = w.made.disks.take().unwrap();
            let (clients, mut handle) = open(&w, w.sim_blk(&medium, &sim)).await;
            let writers = Writers::start(&w, &disk);
            for _ in 0..3 {
                writers.progress(&w).await;
                let client =
                    Client::take_over(handle, &w.kernel, &w.adapter, &w.vdpa, &kernels).await;
                let client = client.unwrap();
                assert_eq!(w.vdpa.driver_of(&kernels), None);
                let path = w.virtio_device().node().path();
                assert!(path.ends_with("vhost-vdpa-0 -> virtio0"), "{path}");
                writers.progress(&w).await;
                client.hand_back(&w.vdpa, &kernels).await.unwrap();
                client.detach().await;
                assert!(clients.status().unwrap().is_empty());
                handle = w
                    .vhost
                    .open("vhost-vdpa-0", OpenOptions::default())
                    .await
                    .unwrap();
            }
            writers.progress(&w).await;
            writers.finish(&w, &medium).await;
            handle.close().await.unwrap();
            drop(disk);
            for device in [kernels, clients] {
                w.vdpa.unregister(&device, Removal::Orderly).await;
            }
        });
        assert_eq!(w.memory(), 0, "{features}");
        assert_eq!(w.platform.tasks(), [""; 0], "{features}");
    }
}

#[test]
fn an_interface_goes_from_virtio_to_vhost_and_back_and_loses_no_frame() {
    let w = World::new();
    w.platform.block_on(async {
        let sim = SimConfig::default();
        let kernels = w.add(w.sim_net(&sim)).await;
        let interface = w.made.nets.take().unwrap();
        let (_, handle) = open(&w, w.sim_net(&sim)).await;
        let traffic = Traffic::start(&w, interface);
        traffic.progress(&w).await;
        let client = Client::take_over(handle, &w.kernel, &w.adapter, &w.vdpa, &kernels).await;
        let client = client.unwrap();
        traffic.progress(&w).await;
        client.hand_back(&w.vdpa, &kernels).await.unwrap();
        traffic.progress(&w).await;
        traffic.finish(&w).await;
    });
}

#[test]
fn a_client_that_was_given_a_device_loses_it_when_its_own_is_taken_away() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let sim = SimConfig::default();
        let kernels = w.add(w.sim_blk(&medium, &sim)).await;
        let disk = w.made.disks.take().unwrap();
        let (clients, handle) = open(&w, w.sim_blk(&medium, &sim)).await;
        let writers = Writers::start(&w, &disk);
        let client = Client::take_over(handle, &w.kernel, &w.adapter, &w.vdpa, &kernels).await;
        let client = client.unwrap();
        writers.progress(&w).await;
        w.vdpa.unregister(&clients, Removal::Orderly).await;
        client.ended().await;
        w.kernel.sleep(Duration::from_millis(10)).await;
        assert_eq!(writers.running(), 0);
        assert!(w.virtio.devices().is_empty());
        drop((disk, client));
    });
    assert_eq!(w.memory(), 0);
}

#[test]
fn a_move_that_fails_leaves_the_client_what_it_has() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let sim = SimConfig::default();
        let (_, handle) = open(&w, w.sim_blk(&medium, &sim)).await;
        let task = Task::start(&w, handle).await;
        let disk = task.made.disks.take().unwrap();
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        let other = w.add_spare(w.sim_net(&sim)).await;
        let refused = task.client.hand_back(&w.vdpa, &other).await;
        assert_eq!(refused, Err(virtio_bus::MoveError::OtherType));
        writers.progress(&w).await;
        writers.finish(&w, &medium).await;
        task.client.detach().await;
    });
}

#[test]
fn a_client_without_quota_for_its_arena_is_refused_and_the_device_is_closed() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let (device, handle) = open(&w, w.sim_blk(&medium, &SimConfig::default())).await;
        handle.close().await.unwrap();
        let options = OpenOptions {
            quota: 1 << 20,
            ..OpenOptions::default()
        };
        let handle = w.vhost.open("vhost-vdpa-0", options).await.unwrap();
        let bus = VirtioBus::new("client");
        let client = Client::attach(handle, &w.kernel, &bus, ClientOptions::default()).await;
        assert!(client.is_err());
        assert!(bus.devices().is_empty());
        let again = w.vhost.open("vhost-vdpa-0", options).await;
        again.unwrap().close().await.unwrap();
        w.vdpa.unregister(&device, Removal::Orderly).await;
    });
    assert_eq!(w.memory(), 0);
}

#[test]
fn a_fake_without_queue_states_works_over_vhost() {
    let w = World::new();
    let medium = ram_disk();
    w.platform.block_on(async {
        let old = crate::slow_disk::slow_disk(&w, &medium, Features::EMPTY, Abilities::empty());
        let device = w.add(old.ops()).await;
        w.vdpa.set_override(&device, Some("vhost_vdpa")).await;
        let refused = w.vhost.open("vhost-vdpa-0", OpenOptions::default()).await;
        assert!(refused.is_err(), "nothing isolates the device");
        let options = OpenOptions {
            // SAFETY: the client's rings are of memory of its own.
            trust: unsafe { vdpa::dma::Trust::unsafe_no_iommu() },
            ..OpenOptions::default()
        };
        let handle = w.vhost.open("vhost-vdpa-0", options).await.unwrap();
        let task = Task::start(&w, handle).await;
        let disk = task.made.disks.take().unwrap();
        let writers = Writers::start(&w, &disk);
        writers.progress(&w).await;
        writers.finish(&w, &medium).await;
        task.client.detach().await;
    });
}
