//! What a device can reach: what is mapped for it, as it is mapped, and nothing else.

use std::sync::Arc;

use vdpa::device::Attachment;
use vdpa::dma::{Addressing, DmaSpace, IovaSpace, MapTarget};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, OpError};
use vdpa_sim::SimConfig;
use virtio::DeviceStatus;
use virtq::{AddReason, DeviceMemory, DmaAddr, SharedMemory};

use crate::disk::{IN, IOERR, OK, OUT, SECTOR, all, drive, header, ram_disk, sim_blk};
use crate::network::{self, OTHER, OWN, RX, TX};
use crate::world::{Parts, Rig, UNTOUCHED, Variant, World, variants};

/// What is mapped around an address.
fn mapping(rig: &Rig, addr: DmaAddr) -> (IovaRange, Backing) {
    rig.attachment
        .with_table(0, |table| {
            let mapping = table.translate(addr.0, Permission::empty()).unwrap();
            (mapping.range, mapping.target.clone())
        })
        .unwrap()
}

#[test]
fn a_buffer_that_is_not_mapped_fails_its_request_alone() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        let parts = Parts::new(&rig.dma, &[&header(IN, 0)], &[4096, 1]);
        let (range, backing) = mapping(&rig, parts.writable[0].addr());
        rig.attachment.unmap(0, range).unwrap();
        rig.lines[0].ring.add(parts).unwrap();
        rig.kick(0);
        world.run();
        let answer = rig.take(0).unwrap();
        assert_eq!((answer.status(), answer.written), (IOERR, 0), "{variant:?}");
        assert!(answer.bytes[..4096].iter().all(|byte| *byte == UNTOUCHED));
        assert_eq!(rig.count(0, "dma faults"), 1);
        assert!(!rig.status().contains(DeviceStatus::DEVICE_NEEDS_RESET));
        rig.attachment
            .map(0, range, Permission::all(), backing)
            .unwrap();
        assert_eq!(rig.read(&world, 0, 4096).status(), OK);
    }
}

#[test]
fn a_buffer_is_used_as_it_is_mapped() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        // The device may read the buffer that it is to write, and write the one that it is to read.
        for (permission, kind) in [(Permission::READ, IN), (Permission::WRITE, OUT)] {
            let parts = if kind == IN {
                Parts::new(&rig.dma, &[&header(kind, 0)], &[4096, 1])
            } else {
                Parts::new(&rig.dma, &[&header(kind, 0), &[1; 4096]], &[1])
            };
            let addr = match parts.writable.first() {
                Some(buffer) if kind == IN => buffer.addr(),
                _ => parts.readable[1].addr(),
            };
            let (range, backing) = mapping(&rig, addr);
            rig.attachment.unmap(0, range).unwrap();
            rig.attachment.map(0, range, permission, backing).unwrap();
            rig.lines[0].ring.add(parts).unwrap();
            rig.kick(0);
            world.run();
            assert_eq!(rig.take(0).unwrap().status(), IOERR, "{permission:?}");
        }
        assert_eq!(rig.count(0, "dma faults"), 2);
        assert_eq!(disk.allocated(), 64 * 1024, "where it was to be written");
    }
}

#[test]
fn an_address_of_the_platform_means_nothing() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        let parts = Parts::new(&world.kernel().dma(), &[&header(IN, 0)], &[SECTOR, 1]);
        let refused = rig.lines[0].ring.add(parts).unwrap_err();
        assert_eq!(refused.reason, AddReason::Foreign, "a queue knows better");
        let mut parts = Parts::new(&rig.dma, &[&header(IN, 0)], &[SECTOR, 1]);
        parts.elsewhere = Some(Box::new(refused.chain));
        rig.lines[0].ring.add(parts).unwrap();
        rig.kick(0);
        world.run();
        let answer = rig.take(0).unwrap();
        assert_eq!((answer.status(), answer.written), (UNTOUCHED, 0));
        assert_eq!(rig.count(0, "dma faults"), 2, "the header and the status");
        assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
    }
}

#[test]
fn a_ring_that_is_not_mapped_breaks_the_device_and_no_other() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        let mut other = drive(&world, &disk, variant);
        assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
        let (range, _) = mapping(&rig, rig.lines[0].ring.addresses().descriptor);
        rig.attachment.unmap(0, range).unwrap();
        rig.offer(0, &[&header(IN, 0)], &[SECTOR, 1]);
        rig.kick(0);
        world.run();
        assert!(rig.take(0).is_none(), "{variant:?}");
        assert!(rig.status().contains(DeviceStatus::DEVICE_NEEDS_RESET));
        assert_eq!(rig.config_event.count(), 1);
        assert_eq!(rig.count(0, "dma faults"), 1);
        // It stays so, whatever is rung, and whatever is mapped.
        rig.kick(0);
        world.run();
        assert_eq!(
            (rig.count(0, "dma faults"), rig.config_event.count()),
            (1, 1)
        );
        assert_eq!(other.read(&world, 0, SECTOR).status(), OK);

        let device = rig.stop(&world);
        assert!(device.status().unwrap().is_empty());
        let space = DmaSpace::new(&world.kernel());
        let rig = Rig::prepare(&world, device, &space, variant, all().into());
        let mut rig = rig.with_queues(&world, &[0]);
        assert_eq!(rig.read(&world, 0, SECTOR).status(), OK);
        assert_eq!(
            rig.count(0, "dma faults"),
            1,
            "counted since the device was made"
        );
    }
}

#[test]
fn memory_that_was_taken_away_is_let_go() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let mut rig = drive(&world, &disk, variant);
        let before = world.platform.heap().outstanding();
        assert_eq!(rig.write(&world, 0, &[1; 3 * 4096]).status(), OK);
        // The buffers are dropped, and so unmapped; the queue's cache still knows them.
        assert!(world.platform.heap().outstanding() > before);
        world.platform.block_on(rig.attachment.settle(0)).unwrap();
        assert_eq!(world.platform.heap().outstanding(), before, "{variant:?}");
        // The worker does it by itself, too.
        assert_eq!(rig.write(&world, 0, &[1; 3 * 4096]).status(), OK);
        world.run();
        assert_eq!(world.platform.heap().outstanding(), before);
    }
}

#[test]
fn what_is_mapped_outlives_a_reset_until_it_is_taken_away() {
    for variant in variants() {
        let (world, disk) = (World::new(), ram_disk());
        let rig = drive(&world, &disk, variant);
        let memory = SharedMemory::new(&world.kernel().dma(), 4096).unwrap();
        let range = IovaRange::new(rig.attachment.iova_range().last() - 4095, 4096).unwrap();
        let memory = DeviceMemory::open(&memory).unwrap();
        let backing = Backing { memory, offset: 0 };
        rig.attachment
            .map(0, range, Permission::all(), backing)
            .unwrap();
        world.platform.block_on(rig.device.reset()).unwrap();
        let mapped = |rig: &Rig| rig.attachment.with_table(0, |table| table.len()).unwrap();
        assert!(mapped(&rig) > 1);
        rig.attachment.reset_map(0).unwrap();
        assert_eq!(mapped(&rig), 0);
    }
}

#[test]
fn a_table_has_an_end() {
    for flavour in [vdpa_sim::Flavour::Incremental, vdpa_sim::Flavour::Whole] {
        let world = World::new();
        let sim = SimConfig {
            flavour,
            mappings_max: 3,
            ..SimConfig::default()
        };
        let device = world.register(sim_blk(&world, &ram_disk(), sim));
        let rig_space = DmaSpace::new(&world.kernel());
        let rig = Rig::prepare(&world, device, &rig_space, Variant::BEST, all().into());
        let memory = SharedMemory::new(&world.kernel().dma(), 4096).unwrap();
        let map = |page: u64| {
            let first = rig.attachment.iova_range().first();
            let range = IovaRange::new(first + 2 * 4096 * page, 4096).unwrap();
            let backing = Backing {
                memory: DeviceMemory::open(&memory).unwrap(),
                offset: 0,
            };
            rig.attachment.map(0, range, Permission::all(), backing)
        };
        for page in 0..3 {
            assert_eq!(map(page), Ok(()));
        }
        assert_eq!(map(3), Err(OpError::OutOfResources));
        assert_eq!(map(2), Err(OpError::Overlap));
    }
}

/// Another address space than the first.
struct Space(Arc<Attachment>, u16);

// SAFETY: as for the attachment.
unsafe impl MapTarget for Space {
    fn addressing(&self) -> Addressing {
        self.0.addressing()
    }

    fn iova_space(&self) -> IovaSpace {
        self.0.iova_space().clone()
    }

    fn map(
        &self,
        range: IovaRange,
        permission: Permission,
        backing: Backing,
    ) -> Result<(), OpError> {
        self.0.map(self.1, range, permission, backing)
    }

    fn unmap(&self, range: IovaRange) -> Result<(), OpError> {
        self.0.unmap(self.1, range).map(drop)
    }
}

#[test]
fn the_control_queue_has_an_address_space_of_its_own() {
    for variant in variants() {
        let world = World::new();
        let (_, ops) = network::sim_net(&world, network::config(variant));
        let device = world.register(ops);
        assert_eq!((device.group_count(), device.space_count()), (2, 2));
        let space = DmaSpace::new(&world.kernel());
        let mut rig = Rig::prepare(&world, device, &space, variant, network::all().into());
        let groups = [0, 1, 2].map(|queue| rig.device.queue_group(queue).unwrap());
        assert_eq!(groups, [0, 0, 1]);
        world
            .platform
            .block_on(rig.device.set_group_space(1, 1))
            .unwrap();
        // The control queue and its buffers lie in the second space, at the addresses that are in
        // use in the first.
        let control_space = DmaSpace::new(&world.kernel());
        let second = Arc::new(Space(Arc::clone(&rig.attachment), 1));
        control_space.attach(second).unwrap();
        let data = std::mem::replace(&mut rig.dma, control_space.allocator());
        let mut rig = rig.with_ring(2);
        let control = std::mem::replace(&mut rig.dma, data);
        let mut rig = rig.with_ring(0).with_ring(1);
        let [first, receive, _] = [0, 1, 2].map(|line| rig.lines[line].ring.addresses().descriptor);
        assert_eq!(first, receive, "the same address, twice");
        rig.start(&world);

        let data = std::mem::replace(&mut rig.dma, Arc::clone(&control));
        let request: &[&[u8]] = &[&[1, 1], &OTHER];
        assert_eq!(
            rig.exchange(&world, 0, request, &[1]).bytes,
            [0],
            "{variant:?}"
        );
        rig.dma = data;
        rig.offer_buffers(1 + RX, 2);
        for (to, number) in [(OWN, 1), (OTHER, 2)] {
            rig.send(1 + TX, &network::frame(to, 60, number));
        }
        world.run();
        assert_eq!(rig.receive(1 + RX), Some(network::frame(OTHER, 60, 2)));

        // After a reset the group is in the first space again.
        world.platform.block_on(rig.device.reset()).unwrap();
        rig.hold.release();
        let moved = world.platform.block_on(rig.device.set_group_space(1, 2));
        assert_eq!(moved, Err(OpError::OutOfRange));
        assert_eq!(rig.count(2, "cvq successes"), 1);
    }
}
