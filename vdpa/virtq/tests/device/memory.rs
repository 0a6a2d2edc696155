//! What the device side does where memory is scattered, forbidden, missing or watched.

use std::sync::Mutex;

use crate::common::*;
use virtq::device::{
    Access, Broken, CompleteError, DeviceQueue, Direct, DirtyLog, Fault, Memory, OverlapError,
    PopError, Region, TransferError, Translate, Translated, Translation,
};
use virtq::{DmaAddr, Pending, RingFeatures};

/// A ring of 16 in a translated world: no part of a split one lies in a single page.
fn setup(features: RingFeatures) -> (World, Driver, DeviceQueue<SharedMemory>) {
    let world = World::translated();
    let driver = Driver::new(&world, 16, features);
    let queue = device(&driver, &world);
    (world, driver, queue)
}

/// Two whole pages of the driver's memory.
fn two_pages(world: &World) -> DmaAddr {
    world.allocate(2 * PAGE as usize, PAGE)
}

#[test]
fn pull_reports_how_far_it_got_before_a_hole() {
    for features in [SPLIT, PACKED] {
        let (world, mut driver, mut queue) = setup(features);
        let addr = two_pages(&world);
        world.write(addr, &[3; 128]);
        driver.send(&world, &[Buffer::readable(addr.offset(1), 127)]);
        let chain = pop(&mut queue);
        world.iotlb().unmap(addr.offset(64));
        let mut bytes = [0; 127];
        let error = queue.pull(&chain, 0, &mut bytes).unwrap_err();
        assert_eq!(
            error,
            TransferError {
                done: 63,
                fault: Fault::NoMapping
            }
        );
        assert_eq!((bytes[..63].to_vec(), bytes[63]), (vec![3; 63], 0));
        // The request can still be answered.
        assert_eq!(queue.broken(), None);
        queue.complete(chain, 0).unwrap();
    }
}

#[test]
fn push_reports_how_far_it_got_before_a_read_only_page() {
    let (world, mut driver, mut queue) = setup(SPLIT);
    let addr = two_pages(&world);
    driver.send(&world, &[Buffer::writable(addr, 128)]);
    let chain = pop(&mut queue);
    world.iotlb().protect(addr.offset(64), Permission::ReadOnly);
    let error = queue.push(&chain, 32, &[1; 96]).unwrap_err();
    assert_eq!(
        error,
        TransferError {
            done: 32,
            fault: Fault::Permission
        }
    );
    assert_eq!(world.read(addr.offset(64), 64), [0; 64]);
}

#[test]
fn pull_needs_no_permission_to_write_nor_push_to_read() {
    let (world, mut driver, mut queue) = setup(SPLIT);
    let (from, to) = (two_pages(&world), two_pages(&world));
    world.iotlb().protect(from, Permission::ReadOnly);
    world.iotlb().protect(to, Permission::WriteOnly);
    driver.send(
        &world,
        &[Buffer::readable(from, 64), Buffer::writable(to, 64)],
    );
    let chain = pop(&mut queue);
    assert_eq!(queue.pull(&chain, 0, &mut [0; 64]), Ok(64));
    assert_eq!(queue.push(&chain, 0, &[0; 64]), Ok(64));
    world.iotlb().protect(from, Permission::WriteOnly);
    let error = queue.pull(&chain, 0, &mut [0; 64]).unwrap_err();
    assert_eq!(
        error,
        TransferError {
            done: 0,
            fault: Fault::Permission
        }
    );
}

#[test]
fn pieces_end_after_a_fault() {
    let (world, mut driver, mut queue) = setup(SPLIT);
    let addr = two_pages(&world);
    driver.send(
        &world,
        &[Buffer::readable(addr, 128), Buffer::with(&world, b"rest")],
    );
    let chain = pop(&mut queue);
    world.iotlb().unmap(addr.offset(64));
    let mut pieces = queue.readable_pieces(&chain);
    assert_eq!(pieces.next().unwrap().unwrap().len, 64);
    assert_eq!(pieces.next().unwrap(), Err(Fault::NoMapping));
    assert!(pieces.next().is_none());
}

#[test]
fn an_available_ring_that_is_withdrawn_breaks_the_queue() {
    let (world, driver, mut queue) = setup(SPLIT);
    assert!(queue.pop().unwrap().is_none());
    world.iotlb().unmap(driver.addresses().driver);
    assert_eq!(breaks(&mut queue), Broken::RingFault(Fault::NoMapping));
}

#[test]
fn a_packed_ring_that_is_withdrawn_breaks_the_queue() {
    let (world, driver, mut queue) = setup(PACKED);
    assert!(queue.pop().unwrap().is_none());
    world
        .iotlb()
        .protect(driver.addresses().descriptor, Permission::WriteOnly);
    assert_eq!(breaks(&mut queue), Broken::RingFault(Fault::Permission));
}

#[test]
fn a_hole_in_the_descriptor_table_breaks_the_queue_and_leaves_the_chain() {
    let (world, mut driver, mut queue) = setup(SPLIT);
    // Five descriptors of 16 bytes: the last one is on the second page.
    let id = driver.send(&world, &[Buffer::with(&world, b"x"); 5]);
    let second = DmaAddr((driver.addresses().descriptor.0 / PAGE + 1) * PAGE);
    world.iotlb().unmap(second);
    assert_eq!(breaks(&mut queue), Broken::RingFault(Fault::NoMapping));
    assert_eq!(queue.take_abandoned().unwrap().id(), id);
}

/// The rule that Linux's vringh gets wrong: writing the used ring takes the permission to write.
#[test]
fn a_used_ring_that_is_read_only_is_not_written() {
    let (world, mut driver, mut queue) = setup(SPLIT);
    driver.send(&world, &[Buffer::room(&world, 1)]);
    let chain = pop(&mut queue);
    let used = driver.addresses().device;
    for page in 0..3 {
        world
            .iotlb()
            .protect(used.offset(page * PAGE as usize), Permission::ReadOnly);
    }
    let broken = Broken::RingFault(Fault::Permission);
    assert_eq!(queue.complete(chain, 1), Err(CompleteError::Broken(broken)));
    assert_eq!(queue.broken(), Some(broken));
    assert_eq!(queue.disable_notifications(), Err(broken));
    assert_eq!(queue.enable_notifications(), Err(broken));
    assert_eq!(world.read(used, 14), [0; 14]);
}

#[test]
fn a_driver_whose_used_index_cannot_be_written_is_woken() {
    let (world, mut driver, mut queue) = setup(SPLIT);
    driver.send(&world, &[Buffer::room(&world, 1)]);
    let chain = pop(&mut queue);
    queue.complete(chain, 1).unwrap();
    world.iotlb().unmap(driver.addresses().device);
    assert!(queue.notify());
    assert_eq!(queue.broken(), Some(Broken::RingFault(Fault::NoMapping)));
}

#[test]
fn the_ring_is_found_again_after_its_mapping_has_moved() {
    let world = World::translated();
    let moved = World::translated();
    for features in [SPLIT, PACKED] {
        let mut driver = Driver::new(&world, 16, features);
        let mut twin = Driver::new(&moved, 16, features);
        assert_eq!(driver.addresses(), twin.addresses());
        let memory = Switch {
            now: Mutex::new((world.memory(), 0)),
        };
        let mut queue = DeviceQueue::new(&config(&driver), &memory).unwrap();
        driver.send(&world, &[Buffer::room(&world, 1)]);
        let chain = queue.pop().unwrap().unwrap();
        queue.complete(chain, 1).unwrap();
        queue.publish().unwrap();
        assert!(driver.take(&world).is_some());
        // The same addresses lead to other memory now, where a driver has got as far.
        let id = twin.send(&moved, &[Buffer::room(&moved, 1)]);
        let mut elsewhere = device(&twin, &moved);
        let chain = pop(&mut elsewhere);
        elsewhere.complete(chain, 1).unwrap();
        elsewhere.publish().unwrap();
        assert_eq!(twin.take(&moved), Some((id, 1)));
        *memory.now.lock().unwrap() = (moved.memory(), 1);

        assert!(queue.pop().unwrap().is_none());
        let id = twin.send(&moved, &[Buffer::room(&moved, 1)]);
        let chain = queue.pop().unwrap().unwrap();
        queue.complete(chain, 1).unwrap();
        queue.publish().unwrap();
        assert_eq!(twin.take(&moved), Some((id, 1)));
    }
}

/// Memory that is replaced as a whole.
struct Switch {
    now: Mutex<(SharedMemory, u64)>,
}

// SAFETY: the test keeps both memories, and the generation changes with them.
unsafe impl Memory for Switch {
    fn translate(
        &self,
        addr: DmaAddr,
        len: u32,
        access: Access,
    ) -> Result<virtq::device::Piece, Fault> {
        self.now.lock().unwrap().0.translate(addr, len, access)
    }

    fn generation(&self) -> u64 {
        self.now.lock().unwrap().1
    }
}

/// A translation that keeps to no rule.
struct Hostile(Translation);

impl Translate for Hostile {
    fn translate(&self, _: DmaAddr, _: u32, _: Access) -> Result<Translation, Fault> {
        Ok(self.0)
    }

    fn generation(&self) -> u64 {
        0
    }
}

#[test]
fn a_translation_cannot_lengthen_a_range_nor_stop_progress() {
    let world = World::direct();
    let addr = world.allocate(64, 1);
    let long = Translated::new(
        Hostile(Translation {
            addr,
            len: u32::MAX,
        }),
        world.memory(),
    );
    let piece = long.translate(DmaAddr(5), 7, Access::Read).unwrap();
    assert_eq!((piece.addr, piece.len), (DmaAddr(5), 7));
    let empty = Translated::new(Hostile(Translation { addr, len: 0 }), world.memory());
    assert_eq!(
        empty.translate(DmaAddr(5), 7, Access::Read),
        Err(Fault::NoMapping)
    );
}

/// Mappings that end in the middle of every cell.
struct Shreds;

impl Translate for Shreds {
    fn translate(&self, addr: DmaAddr, len: u32, _: Access) -> Result<Translation, Fault> {
        Ok(Translation {
            addr,
            len: len.min(1),
        })
    }

    fn generation(&self) -> u64 {
        0
    }
}

#[test]
fn a_ring_cell_across_two_mappings_is_not_accessed() {
    for features in [SPLIT, PACKED] {
        let world = World::direct();
        let driver = Driver::new(&world, 4, features);
        let memory = Translated::new(Shreds, world.memory());
        let mut queue = DeviceQueue::new(&config(&driver), memory).unwrap();
        let broken = Broken::RingFault(Fault::Straddles);
        assert_eq!(queue.pop().unwrap_err(), PopError::Broken(broken));
    }
}

#[test]
fn a_ring_that_is_misaligned_on_the_host_is_not_accessed() {
    let world = World::direct();
    let driver = Driver::new(&world, 4, SPLIT);
    let addresses = driver.addresses();
    let memory = Translated::new(Shift(1), world.memory());
    let mut queue = DeviceQueue::new(&config(&driver), memory).unwrap();
    let broken = Broken::RingFault(Fault::Straddles);
    assert_eq!(queue.pop().unwrap_err(), PopError::Broken(broken));
    assert_eq!(driver.addresses(), addresses);
}

/// Every address leads to one so many bytes further on.
struct Shift(u64);

impl Translate for Shift {
    fn translate(&self, addr: DmaAddr, len: u32, _: Access) -> Result<Translation, Fault> {
        Ok(Translation {
            addr: DmaAddr(addr.0 + self.0),
            len,
        })
    }

    fn generation(&self) -> u64 {
        0
    }
}

#[test]
fn regions_must_not_overlap_or_wrap() {
    let byte = std::ptr::NonNull::<u8>::dangling();
    let region = |addr, len| Region {
        addr: DmaAddr(addr),
        ptr: byte,
        len,
    };
    // SAFETY: nothing is read or written through them.
    let new = |regions| unsafe { Direct::new(regions) }.map(|_| ());
    assert_eq!(
        new(vec![region(0x2000, 0x1000), region(0x1000, 0x1000)]),
        Ok(())
    );
    assert_eq!(new(vec![region(u64::MAX - 15, 16), region(0, 1)]), Ok(()));
    assert_eq!(
        new(vec![region(0x2000, 1), region(0x1000, 0x1001)]),
        Err(OverlapError)
    );
    assert_eq!(new(vec![region(u64::MAX, 2)]), Err(OverlapError));
}

#[test]
fn a_region_ends_where_it_ends() {
    let world = World::direct();
    let memory = world.memory();
    let start = world.allocate(1, 1);
    let end = DmaAddr(start.0 + LEN);
    assert_eq!(
        memory
            .translate(DmaAddr(end.0 - 3), 16, Access::Read)
            .unwrap()
            .len,
        3
    );
    assert_eq!(
        memory.translate(end, 1, Access::Read),
        Err(Fault::NoMapping)
    );
    assert_eq!(
        memory.translate(DmaAddr(start.0 - 1), 2, Access::Read),
        Err(Fault::NoMapping)
    );
    assert_eq!(
        memory.translate(DmaAddr(u64::MAX), 1, Access::Write),
        Err(Fault::NoMapping)
    );
}

#[derive(Default)]
struct Log(Mutex<Vec<(DmaAddr, u32)>>);

impl DirtyLog for Log {
    fn written(&self, addr: DmaAddr, len: u32) {
        self.0.lock().unwrap().push((addr, len));
    }
}

/// What has changed is exactly what was logged: nothing more, and nothing less.
#[test]
fn everything_that_is_written_is_logged() {
    let with_events = SPLIT.with_event_idx(true);
    for features in [SPLIT, with_events, PACKED, with_events.with_packed(true)] {
        for world in World::both() {
            let mut driver = Driver::new(&world, 4, features);
            let log = Log::default();
            let mut queue = DeviceQueue::with_log(&config(&driver), world.memory(), &log).unwrap();
            for round in 0..6 {
                let read = Buffer::with(&world, b"readable");
                let (copied, in_place) = (Buffer::room(&world, 100), Buffer::room(&world, 9));
                driver.send(&world, &[read, copied, in_place]);
                let base = read.addr.0 & !0xffff;
                let size = usize::try_from(LEN).unwrap();
                let before = world.read(DmaAddr(base), size);

                let chain = pop(&mut queue);
                queue.push(&chain, 3, &[0xa5; 90]).unwrap();
                let pieces: Vec<_> = queue
                    .writable_pieces(&chain)
                    .map(|piece| piece.unwrap())
                    .collect();
                let last = pieces.last().unwrap();
                // SAFETY: a piece is at least one byte long, and writable.
                unsafe { last.ptr.write(0x5a) };
                queue.log_written(last, 1);
                queue.complete(chain, 109).unwrap();
                let _ = queue.notify();
                if round % 2 == 0 {
                    assert_eq!(queue.enable_notifications(), Ok(Pending::No));
                } else {
                    queue.disable_notifications().unwrap();
                }

                let logged: Vec<_> = log.0.lock().unwrap().drain(..).collect();
                let covers = |addr: u64| {
                    logged
                        .iter()
                        .any(|&(start, len)| (start.0..start.0 + u64::from(len)).contains(&addr))
                };
                let after = world.read(DmaAddr(base), size);
                for (addr, (old, new)) in (base..).zip(before.iter().zip(&after)) {
                    assert!(old == new || covers(addr), "{addr:#x} was written unseen");
                }
                let total: u32 = logged.iter().map(|&(_, len)| len).sum();
                // The payload, and in either format 12 bytes of the ring: a used descriptor and the
                // event suppression, or a used entry, the index, and the flags or the event index.
                assert_eq!(total, 91 + 12);
                assert!(driver.take(&world).is_some());
            }
        }
    }
}
