//! Rings full of whatever a driver likes: the device breaks or goes on, is as good as new after a
//! reset, and no other device notices.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use vdpa::device::{Attachment, VdpaClaim};
use vdpa::dma::{DmaSpace, Owner, Trust};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, QueueAddress};
use vdpa::platform::Callback;
use vdpa::{Features, VdpaOps};
use vdpa_sim::RamDisk;
use virtio::DeviceStatus;
use virtio::net::F;
use virtq::{DeviceMemory, DmaAddr, Doorbell, SharedMemory};

use crate::disk::{self, OK, SECTOR, ram_disk, sim_blk};
use crate::network::{self, OWN, RX, TX, frame};
use crate::world::{Rig, Variant, World, agreed, negotiate};

const PAGE: u64 = 0x1000;
const ENTRIES: u16 = 16;
const QUEUES: u16 = 3;
/// Descriptors, the driver's part and the device's part of a queue have a page each.
const QUEUE_PAGES: u64 = 3;
/// Behind the queues.
const BUFFERS: u64 = QUEUE_PAGES * QUEUES as u64 * PAGE;
const BUFFER_PAGES: u64 = 8;

/// What a driver has written into its memory.
#[derive(Clone, Debug)]
struct Garbage {
    queues: Vec<Ring>,
    buffers: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Ring {
    descriptors: Vec<Descriptor>,
    /// The available ring, or the driver's event suppression.
    driver: Vec<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    addr: Place,
    len: u32,
    flags: u16,
    next: u16,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Inside(u64),
    Anywhere(u64),
}

/// Anything.
fn descriptor() -> impl Strategy<Value = Descriptor> {
    let place = prop_oneof![
        6 => buffer(),
        1 => (0..BUFFERS).prop_map(Place::Inside),
        1 => any::<u64>().prop_map(Place::Anywhere),
        1 => (0..4096u64).prop_map(|below| Place::Anywhere(u64::MAX - below)),
    ];
    let len = prop_oneof![4 => len(), 1 => Just(0), 1 => any::<u32>()];
    // NEXT, WRITE and INDIRECT, and what makes a packed descriptor available.
    let flags = prop_oneof![
        6 => (0..8u16, 0..2u16).prop_map(|(flags, available)| flags | available << 7),
        1 => any::<u16>(),
    ];
    (place, len, flags, 0..ENTRIES + 2).prop_map(|(addr, len, flags, next)| Descriptor {
        addr,
        len,
        flags,
        next,
    })
}

fn buffer() -> impl Strategy<Value = Place> {
    (0..BUFFER_PAGES * PAGE / 16 - 128).prop_map(|unit| Place::Inside(BUFFERS + 16 * unit))
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![1..64u32, Just(1), Just(16), Just(72), Just(512), Just(1600)]
}

/// The segments of a chain: some to read, then some to write.
fn chain() -> impl Strategy<Value = Vec<(Place, u32, bool)>> {
    let (read, write) = (false, true);
    // Requests to a disk, a frame and a buffer for one, and anything.
    let shape = prop_oneof![
        2 => Just(vec![(16, read), (512, write), (1, write)]),
        2 => Just(vec![(16, read), (512, read), (1, write)]),
        2 => Just(vec![(16, read), (16, read), (1, write)]),
        1 => Just(vec![(16, read), (1, write)]),
        4 => Just(vec![(12, read), (60, read)]),
        4 => (16..200u32).prop_map(move |len| vec![(len, write)]),
        3 => (vec(len(), 0..3), vec(len(), 0..4)).prop_map(move |(readable, writable)| {
            let readable = readable.into_iter().map(|len| (len, read));
            readable.chain(writable.into_iter().map(|len| (len, write))).collect()
        }),
    ];
    (shape, vec(buffer(), 8)).prop_map(|(shape, places)| {
        let segments = shape.into_iter().zip(places);
        segments
            .map(|((len, writable), place)| (place, len, writable))
            .collect()
    })
}

/// Good chains, of which some descriptors are then replaced.
fn ring() -> impl Strategy<Value = Ring> {
    let bad = vec((0..usize::from(ENTRIES), descriptor()), 0..2);
    let index = prop_oneof![12 => Just(None), 1 => (0..=ENTRIES).prop_map(Some), 1 => any::<u16>().prop_map(Some)];
    (vec(chain(), 1..8), bad, 0..3u16, index, 0..20u16).prop_map(
        |(chains, bad, driver_flags, index, stray)| {
            let mut descriptors = Vec::new();
            let mut heads = Vec::new();
            for chain in chains {
                let end = descriptors.len() + chain.len();
                if chain.is_empty() || end > usize::from(ENTRIES) {
                    continue;
                }
                heads.push(u16::try_from(descriptors.len()).unwrap());
                for (addr, len, writable) in chain {
                    let next = u16::try_from(descriptors.len() + 1).unwrap();
                    let more = u16::from(usize::from(next) < end);
                    let flags = 1 << 7 | u16::from(writable) << 1 | more;
                    descriptors.push(Descriptor {
                        addr,
                        len,
                        flags,
                        next,
                    });
                }
            }
            let unused = Descriptor {
                addr: Place::Inside(0),
                len: 0,
                flags: 0,
                next: 0,
            };
            descriptors.resize(usize::from(ENTRIES), unused);
            for (index, descriptor) in bad {
                descriptors[index] = descriptor;
            }
            let offered = u16::try_from(heads.len()).unwrap();
            let mut driver = Vec::from([driver_flags, index.unwrap_or(offered)]);
            driver.extend(heads);
            driver.resize(usize::from(ENTRIES) + 3, stray);
            Ring {
                descriptors,
                driver,
            }
        },
    )
}

/// Every 16 bytes could be the header of a request, the start of a frame, or a command.
fn garbage() -> impl Strategy<Value = Garbage> {
    let known = proptest::sample::select(vec![0, 1, 4, 8, 11, 13]);
    let first = prop_oneof![6 => known, 2 => 0..15u8, 1 => any::<u8>()];
    let second = prop_oneof![8 => Just(0), 1 => Just(1), 1 => any::<u8>()];
    let sector =
        prop_oneof![8 => 0..16u64, 1 => disk::SECTORS - 4..disk::SECTORS + 4, 1 => any::<u64>()];
    let unit = (first, second, sector).prop_map(|(first, second, sector)| {
        let mut unit = [0; 16];
        unit[..2].copy_from_slice(&[first, second]);
        unit[8..].copy_from_slice(&sector.to_le_bytes());
        unit
    });
    let len = usize::try_from(BUFFER_PAGES * PAGE).unwrap();
    let buffers = vec(unit, 64).prop_map(move |units| {
        let bytes = units.concat().into_iter().cycle();
        bytes.take(len).collect()
    });
    (vec(ring(), usize::from(QUEUES)), buffers)
        .prop_map(|(queues, buffers)| Garbage { queues, buffers })
}

/// Memory that the driver writes as it likes, mapped for the device.
struct Hostile {
    memory: SharedMemory,
    base: u64,
    doorbells: Vec<Doorbell>,
}

impl Hostile {
    async fn start(
        world: &World,
        device: &Arc<VdpaClaim>,
        attachment: &Arc<Attachment>,
        features: Features,
    ) -> Self {
        let base = attachment.iova_range().first() + 16 * PAGE;
        let pages = BUFFERS / PAGE + BUFFER_PAGES;
        let len = usize::try_from(pages * PAGE).unwrap();
        let memory = SharedMemory::new(&world.kernel().dma(), len).unwrap();
        for page in 0..pages {
            // The device never writes what the driver makes available, so it comes to an end.
            let driver_part = page < BUFFERS / PAGE && page % QUEUE_PAGES == 1;
            let permission = if driver_part {
                Permission::READ
            } else {
                Permission::all()
            };
            let backing = Backing {
                memory: DeviceMemory::open(&memory).unwrap(),
                offset: page * PAGE,
            };
            let range = IovaRange::new(base + page * PAGE, PAGE).unwrap();
            attachment.map(0, range, permission, backing).unwrap();
        }
        negotiate(device, features).await.unwrap();
        let mut doorbells = Vec::new();
        for queue in 0..QUEUES.min(device.queue_count()) {
            let at = |page: u64| DmaAddr(base + (QUEUE_PAGES * u64::from(queue) + page) * PAGE);
            device.set_queue_size(queue, ENTRIES).unwrap();
            let address = QueueAddress {
                descriptor: at(0),
                driver: at(1),
                device: at(2),
            };
            // SAFETY: everything that the device reaches is open memory that is mapped for it.
            unsafe { device.set_queue_address(queue, address) }.unwrap();
            device
                .set_queue_callback(queue, Some(Callback::new(|| ())))
                .unwrap();
            device.start_queue(queue).await.unwrap();
            doorbells.push(device.doorbell(queue).unwrap());
        }
        let status = agreed() | DeviceStatus::DRIVER_OK;
        device.set_status(status).await.unwrap();
        Self {
            memory,
            base,
            doorbells,
        }
    }

    fn write(&self, garbage: &Garbage, packed: bool) {
        for (queue, ring) in (0u64..).zip(&garbage.queues) {
            let start = QUEUE_PAGES * queue * PAGE;
            for (index, descriptor) in (0u64..).zip(&ring.descriptors) {
                let addr = match descriptor.addr {
                    Place::Inside(offset) => self.base + offset,
                    Place::Anywhere(addr) => addr,
                };
                let mut bytes = addr.to_le_bytes().to_vec();
                bytes.extend(descriptor.len.to_le_bytes());
                // In a split ring flags come first, in a packed one the id.
                let (first, second) = if packed {
                    (descriptor.next, descriptor.flags)
                } else {
                    (descriptor.flags, descriptor.next)
                };
                bytes.extend(first.to_le_bytes());
                bytes.extend(second.to_le_bytes());
                self.memory.write(start + 16 * index, &bytes).unwrap();
            }
            let driver: Vec<u8> = ring
                .driver
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect();
            self.memory.write(start + PAGE, &driver).unwrap();
        }
        self.memory.write(BUFFERS, &garbage.buffers).unwrap();
    }
}

/// Lets a device have all of it, piece after piece.
fn attack(
    world: &World,
    ops: Box<dyn VdpaOps>,
    features: Features,
    garbage: &[Garbage],
) -> Arc<VdpaClaim> {
    let device = world.register(ops);
    for garbage in garbage {
        world.platform.block_on(async {
            device.reset().await.unwrap();
            let attachment = device.attach(Owner::Client, Trust::Isolated).unwrap();
            let hostile = Hostile::start(world, &device, &attachment, features).await;
            hostile.write(garbage, features.contains(virtio::F::RING_PACKED));
            hostile
                .doorbells
                .iter()
                .for_each(|doorbell| doorbell.ring(0));
            world.run();
            device.suspend().await.unwrap();
            for queue in 0..QUEUES.min(device.queue_count()) {
                device.queue_statistics(queue).unwrap();
            }
            device.reset().await.unwrap();
            attachment.reset_map(0).unwrap();
            attachment.detach().await.unwrap();
        });
    }
    device
}

fn drive(
    world: &World,
    device: Arc<VdpaClaim>,
    features: impl Into<Features>,
    queues: &[u16],
) -> Rig {
    let space = DmaSpace::new(&world.kernel());
    let rig = Rig::prepare(world, device, &space, Variant::BEST, features.into());
    rig.with_queues(world, queues)
}

fn read_back(disk: &RamDisk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.capacity()).unwrap()];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 2))]

    #[test]
    fn a_disk_survives(garbage in vec(garbage(), 1..4), packed: bool, ring_features: bool) {
        let variant = Variant { packed, ring_features, ..Variant::BEST };
        let (world, attacked, foreign) = (World::new(), ram_disk(), ram_disk());
        foreign.write(0, &[9; 4 * SECTOR]).unwrap();
        let mut other = disk::drive(&world, &foreign, Variant::BEST);
        let before = read_back(&foreign);
        let ops = sim_blk(&world, &attacked, variant.sim());
        let features = variant.features() | disk::all().into();
        let device = attack(&world, ops, features, &garbage);
        prop_assert!(read_back(&foreign) == before);
        prop_assert_eq!(other.read(&world, 0, 4 * SECTOR).bytes[..4 * SECTOR].to_vec(), vec![9; 4 * SECTOR]);
        let mut rig = drive(&world, device, disk::all(), &[0]);
        prop_assert_eq!(rig.write(&world, 1, &[5; SECTOR]).status(), OK);
        prop_assert_eq!(rig.read(&world, 1, SECTOR).bytes[..SECTOR].to_vec(), vec![5; SECTOR]);
        let device = rig.stop(&world);
        world.unregister(&device);
        prop_assert_eq!(world.platform.tasks().len(), 1);
        let device = other.stop(&world);
        world.unregister(&device);
    }

    #[test]
    fn a_network_card_survives(garbage in vec(garbage(), 1..4), packed: bool, ring_features: bool) {
        let variant = Variant { packed, ring_features, ..Variant::BEST };
        let world = World::new();
        let (_, ops) = network::sim_net(&world, network::config(variant));
        let merged = network::all() | F::MRG_RXBUF | F::CSUM;
        let features = variant.features() | merged.into();
        let device = attack(&world, ops, features, &garbage);
        let mut rig = drive(&world, device, network::all(), &[0, 1, 2]);
        rig.offer_buffers(RX, 1);
        rig.send(TX, &frame(OWN, 60, 1));
        world.run();
        prop_assert_eq!(rig.receive(RX), Some(frame(OWN, 60, 1)));
        let device = rig.stop(&world);
        world.unregister(&device);
        prop_assert!(world.platform.tasks().is_empty());
    }
}
