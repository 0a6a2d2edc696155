//! Who has a device: the kernel's drivers or a client, for each kind of translation.

use std::sync::Arc;

use vdpa::Features;
use vdpa::device::VdpaId;
use vdpa::dma::{Isolation, Owner, Trust};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{QueueAddress, QueueState};
use vdpa::testing::{FakeIommu, FakePlatform, Traits, Translation};
use vhost_vdpa::{IotlbMessage, OpenOptions, VhostError, VhostHandle, VhostVdpa};
use virtio_bus::VirtioBus;
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtq::{
    Arena, DeviceHold, DeviceMemory, DmaAddr, DmaAllocator, DmaBuffer, Queue, QueueConfig,
};
use virtq::{Event, Notify, RingFeatures, Writable};

use crate::world::{
    FIRST, NAME, World, agree, agreed, invalidate, reset, running, start, translating, update,
};

#[test]
fn a_device_goes_from_the_kernel_to_a_client_and_back() {
    let world = World::new();
    let virtio = VirtioBus::new("virtio");
    let kernel = VirtioVdpa::new(Arc::clone(&virtio));
    let (bus, device) = (&world.bus, &world.device);
    world.run(bus.add_driver(Arc::new(kernel))).unwrap();

    let to_kernel = || world.run(bus.set_override(device, Some("virtio_vdpa")));
    let to_client = || world.run(bus.set_override(device, Some("vhost_vdpa")));

    to_kernel();
    assert_eq!(device.owner(), Some(Owner::Kernel));
    assert_eq!(virtio.devices().len(), 1);
    assert!(world.registry.names().is_empty());
    for _ in 0..2 {
        to_client();
        assert!(virtio.devices().is_empty());
        let name = world.registry.names().pop().unwrap();
        let handle = world
            .run(world.registry.open(&name, OpenOptions::default()))
            .unwrap();
        assert_eq!(device.owner(), Some(Owner::Client));
        handle.set_owner().unwrap();
        handle.message(update(&world.memory(4096), FIRST)).unwrap();
        world.run(start(&handle)).unwrap();

        to_kernel();
        assert!(handle.is_hung_up());
        assert_eq!(device.owner(), Some(Owner::Kernel));
        assert!(world.parent.mapped(0).is_empty());
        assert!(!world.parent.is_ready(0));
        assert_eq!(virtio.devices().len(), 1);
        // What the client still tries does not reach the kernel's device.
        world.log();
        assert_eq!(
            handle.message(update(&world.memory(4096), FIRST)),
            Err(VhostError::HungUp)
        );
        assert_eq!(handle.set_vring_num(0, 16), Err(VhostError::HungUp));
        assert_eq!(
            world.run(handle.set_status(reset())),
            Err(VhostError::HungUp)
        );
        assert!(world.log().is_empty());
    }
}

#[test]
fn a_device_outside_the_table_is_lent_only_if_its_override_says_so() {
    let world = World::new();
    let (bus, device) = (&world.bus, &world.device);
    let disks = VhostVdpa::new(Arc::clone(&world.registry), [VdpaId::Type(2)]);
    world.run(bus.remove_driver("vhost_vdpa"));
    world.run(bus.add_driver(Arc::new(disks))).unwrap();
    assert_eq!(bus.driver_of(device), None);
    world.run(bus.set_override(device, Some("vhost_vdpa")));
    assert_eq!(bus.driver_of(device).as_deref(), Some("vhost_vdpa"));
    drop(world.open());
}

#[test]
fn a_client_maps_the_same_way_whoever_translates() {
    let iommu = FakeIommu::new();
    let behind_iommu = FakePlatform::with_iommu(&iommu);
    let plain = FakePlatform::new();
    for (platform, traits, isolation) in [
        (&behind_iommu, Traits::default(), Isolation::Iommu),
        (
            &plain,
            translating(Translation::Incremental),
            Isolation::OnChip,
        ),
        (&plain, translating(Translation::Whole), Isolation::OnChip),
    ] {
        let world = World::on(platform, traits);
        assert_eq!(world.device.isolation(), isolation);
        let mapped = || match isolation {
            Isolation::Iommu => {
                let mapped = iommu.mapped(&world.unit);
                mapped.iter().map(|m| (m.0, m.1)).collect()
            }
            _ => world.parent.mapped(0),
        };
        let handle = world.owner();
        let memory = world.memory(2 * 4096);
        handle.message(update(&memory, FIRST)).unwrap();
        let all = Permission::READ | Permission::WRITE;
        assert_eq!(mapped(), [(IovaRange::new(FIRST, 8192).unwrap(), all)]);
        assert_eq!(
            handle.message(update(&memory, FIRST + 4096)),
            Err(VhostError::Exists)
        );
        handle.message(invalidate(FIRST, 4096)).unwrap();
        let rest = IovaRange::new(FIRST + 4096, 4096).unwrap();
        assert_eq!(mapped(), [(rest, all)]);
        world.run(start(&handle)).unwrap();
        world.run(handle.close()).unwrap();
        assert!(mapped().is_empty());
    }
    assert_eq!(plain.heap().outstanding(), 0);
    assert_eq!(behind_iommu.heap().outstanding(), 0);
}

#[test]
fn devices_that_cannot_be_told_apart_have_one_owner() {
    let iommu = FakeIommu::new();
    let world = World::on(&FakePlatform::with_iommu(&iommu), Traits::default());
    let (_parent, _neighbour) = world.add_neighbour(Traits::default());
    let first = world.open();
    let second = || {
        let name = "vhost-vdpa-1";
        world.run(world.registry.open(name, OpenOptions::default()))
    };
    assert_eq!(second().unwrap_err(), VhostError::UnitTaken);
    world.run(first.close()).unwrap();
    drop(second().unwrap());

    // Those that translate themselves can be told apart.
    let world = World::new();
    let (_parent, _neighbour) = world.add_neighbour(translating(Translation::Whole));
    let _first = world.open();
    world
        .run(world.registry.open("vhost-vdpa-1", OpenOptions::default()))
        .unwrap();
    assert_eq!(world.registry.names().first().unwrap(), NAME);
}

/// Tells the device where the queue lies and where it goes on, and lets it run.
async fn run_queue<T: virtq::Chain>(
    handle: &VhostHandle,
    queue: &Queue<T>,
    base: QueueState,
    call: &Arc<Event>,
) -> Result<(), VhostError> {
    agree(handle, Features::EMPTY).await?;
    assert_eq!(handle.status()?, agreed());
    let addresses = queue.addresses();
    handle.set_vring_num(0, queue.size())?;
    handle.set_vring_addr(
        0,
        QueueAddress {
            descriptor: addresses.descriptor,
            driver: addresses.driver,
            device: addresses.device,
        },
    )?;
    handle.set_vring_base(0, base)?;
    handle.set_vring_call(0, Some(Arc::clone(call)))?;
    handle.enable_vring(0).await?;
    handle.set_status(running()).await
}

#[test]
fn a_queue_goes_on_where_it_stood_and_nothing_is_lost_or_doubled() {
    let world = World::with(Traits::default());
    let handle = world.owner_with(OpenOptions {
        // SAFETY: the client has a queue of its own, and nothing else.
        trust: unsafe { Trust::unsafe_no_iommu() },
        ..OpenOptions::default()
    });
    // Nobody translates, so the arena is mapped where it lies.
    let memory = world.memory(16 * 4096);
    let address = memory.platform_addr().unwrap();
    let mapping = IotlbMessage::Update {
        asid: 0,
        iova: address.0,
        size: memory.len(),
        // SAFETY: the device works on the queue below.
        memory: unsafe { DeviceMemory::lent(&memory) },
        offset: 0,
        permission: Permission::all(),
    };
    handle.message(mapping).unwrap();
    let arena: Arc<dyn DmaAllocator> = Arena::new(memory, DmaAddr(address.0)).unwrap();
    let config = QueueConfig {
        size: 8,
        align: 1,
        features: RingFeatures::default(),
    };
    let mut queue = Queue::new(&config, &arena, &DeviceHold::new()).unwrap();
    let call = Arc::<Event>::default();
    let mut base = QueueState::Split { avail_index: 0 };
    let (mut sent, mut served, mut back) = (0, 0u8, Vec::new());

    for _ in 0..5 {
        world.run(run_queue(&handle, &queue, base, &call)).unwrap();
        let doorbell = handle.doorbell(0).unwrap();
        while queue.free() > 0 {
            let buffer = DmaBuffer::new(&arena, 1).unwrap();
            queue.add(Writable(buffer)).unwrap();
            sent += 1;
        }
        if queue.publish() == Notify::Needed {
            doorbell.ring(queue.place());
        }
        // The device serves some of what it has been given, and is stopped.
        for _ in 0..3 {
            let request = world.parent.pop(0).unwrap();
            world.parent.complete(0, &request, &[served]);
            served += 1;
        }
        assert!(call.take());
        world.run(handle.suspend()).unwrap();
        assert!(world.parent.pop(0).is_none());
        base = world.run(handle.vring_base(0)).unwrap();
        let avail_index = u16::from(served);
        assert_eq!(base, QueueState::Split { avail_index });
        world.run(handle.set_status(reset())).unwrap();
        while let Some(used) = queue.take().unwrap() {
            back.push(used.chain.0[0]);
        }
    }
    assert!(back.into_iter().eq(0..served));
    assert_eq!(queue.in_flight(), sent - u16::from(served));
    drop(queue);
    world.run(handle.close()).unwrap();
}
