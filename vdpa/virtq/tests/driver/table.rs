//! Chains that keep their indirect tables themselves.

use std::sync::Arc;

use virtq::testing::HeapDma;
use virtq::{
    AddReason, Chain, DmaAllocator, DmaBuffer, IndirectTable, Queue, QueueConfig, RingFeatures,
    Segment,
};

use crate::common::{Device, Setup};

/// Three buffers: one that the device reads and two that it writes.
pub struct Tabled {
    buffers: [DmaBuffer; 3],
    table: Option<IndirectTable>,
}

impl Tabled {
    pub fn new(setup: &Setup, features: RingFeatures) -> Self {
        Self::with_room(&setup.allocator(), features, 3)
    }

    pub fn with_room(dma: &Arc<dyn DmaAllocator>, features: RingFeatures, room: usize) -> Self {
        let buffers = [16, 512, 1].map(|len| DmaBuffer::new(dma, len).unwrap());
        let entries = DmaBuffer::new(dma, IndirectTable::len(room)).unwrap();
        let mut chain = Self {
            buffers,
            table: IndirectTable::new(entries, features),
        };
        chain.describe();
        chain
    }

    pub fn describe(&mut self) {
        if let Some(table) = &mut self.table {
            let [header, data, status] = &self.buffers;
            let mut writer = table.write(3);
            writer.readable(Segment::of(header));
            writer.writable(Segment::of(data));
            writer.writable(Segment::of(status));
            writer.end();
        }
    }

    /// Other data, in the same table.
    pub fn replace(&mut self, buffer: DmaBuffer) -> bool {
        let table = self.table.as_mut().unwrap();
        let replaced = table.replace(1, &buffer, u32::try_from(buffer.len()).unwrap());
        self.buffers[1] = buffer;
        replaced
    }

    pub fn places(&self) -> [(u64, u32); 3] {
        self.buffers
            .each_ref()
            .map(|buffer| (buffer.addr().0, u32::try_from(buffer.len()).unwrap()))
    }
}

// SAFETY: the segments are whole buffers that the value owns, as is the table, which names them.
unsafe impl Chain for Tabled {
    const MAX_SEGMENTS: u16 = 3;
    const KEEPS_TABLE: bool = true;

    fn table(&self) -> Option<&IndirectTable> {
        self.table.as_ref()
    }

    fn readable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.buffers[..1].iter().map(Segment::of)
    }

    fn writable(&self) -> impl ExactSizeIterator<Item = Segment> {
        self.buffers[1..].iter().map(Segment::of)
    }
}

pub fn queue(setup: &Setup, features: RingFeatures) -> Queue<Tabled> {
    let config = QueueConfig {
        size: 8,
        align: 1,
        features,
    };
    Queue::new(&config, &setup.allocator(), &setup.hold).unwrap()
}

pub fn both_formats() -> [RingFeatures; 2] {
    [false, true].map(|packed| RingFeatures::NONE.with_packed(packed).with_indirect(true))
}

/// Takes the next chain, and says where its segments lie.
pub fn pop(device: &mut Device) -> (u16, Vec<(u64, u32)>) {
    let request = device.pop().unwrap();
    assert_eq!(request.readable.len(), 1);
    let segments = request.readable.iter().chain(&request.writable);
    let places = segments.map(|segment| (segment.addr.0, segment.len));
    (request.descriptors, places.collect())
}

#[test]
fn the_device_finds_the_segments_that_the_table_names_and_no_second_table_is_made() {
    for features in both_formats() {
        let setup = Setup::new();
        let mut queue = queue(&setup, features);
        let mut device = Device::of(&queue, features, &setup);
        let chain = Tabled::new(&setup, features);
        let places = chain.places();
        queue.add(chain).unwrap();
        let _ = queue.publish();
        assert_eq!((queue.free(), pop(&mut device)), (7, (1, places.to_vec())));
    }
}

#[test]
fn a_replaced_segment_is_the_one_that_the_device_writes_and_its_length_counts() {
    for features in both_formats() {
        let setup = Setup::new();
        let mut queue = queue(&setup, features);
        let mut device = Device::of(&queue, features, &setup);
        let mut chain = Tabled::new(&setup, features);
        assert!(chain.replace(DmaBuffer::new(&setup.allocator(), 64).unwrap()));
        let places = chain.places();
        queue.add(chain).unwrap();
        let _ = queue.publish();
        let request = device.pop().unwrap();
        let found: Vec<_> = request
            .writable
            .iter()
            .map(|it| (it.addr.0, it.len))
            .collect();
        assert_eq!(found, places[1..]);
        // More than the new segments hold, and less than the old ones did.
        device.finish_batch(&[request], 66);
        assert!(queue.take().is_err());
    }
}

#[test]
fn no_segment_is_replaced_that_the_table_does_not_have() {
    for features in both_formats() {
        let setup = Setup::new();
        let chain = Tabled::new(&setup, features);
        let mut table = chain.table.unwrap();
        let data = &chain.buffers[1];
        assert_eq!(
            [2, 3, 4, 99].map(|index| table.replace(index, data, 512)),
            [true, false, false, false]
        );
        assert_eq!(
            [0, 1, 512, 513].map(|len| table.replace(1, data, len)),
            [false, true, true, false]
        );
        let mut writer = table.write(1);
        writer.readable(Segment::of(data));
        drop(writer);
        assert!(!table.replace(0, data, 512), "the writer has not ended");
        let mut writer = table.write(1);
        writer.readable(Segment::of(data));
        writer.end();
        assert_eq!(
            [0, 1].map(|index| table.replace(index, data, 512)),
            [true, false]
        );
    }
}

#[test]
fn a_foreign_segment_is_refused_until_the_table_is_written_anew() {
    for features in both_formats() {
        let setup = Setup::new();
        let mut queue = queue(&setup, features);
        let memory = virtq::SharedMemory::new(&(HeapDma::new() as Arc<dyn DmaAllocator>), 4096);
        let elsewhere = virtq::Arena::new(memory.unwrap(), virtq::DmaAddr(0)).unwrap();
        let elsewhere: Arc<dyn DmaAllocator> = elsewhere;
        let mut chain = Tabled::new(&setup, features);
        assert!(!chain.replace(DmaBuffer::new(&elsewhere, 512).unwrap()));
        chain.describe();
        let mut refused = queue.add(chain).unwrap_err();
        assert_eq!(refused.reason, AddReason::Foreign);
        assert!(
            !refused
                .chain
                .replace(DmaBuffer::new(&setup.allocator(), 512).unwrap())
        );
        refused.chain.describe();
        assert!(queue.add(refused.chain).is_ok());
        // And a table that is itself somewhere else.
        let foreign = Tabled::with_room(&elsewhere, features, 3);
        assert_eq!(queue.add(foreign).unwrap_err().reason, AddReason::Foreign);
    }
}

#[test]
fn a_table_without_room_for_its_segments_makes_a_chain_that_is_too_long() {
    for features in both_formats() {
        let setup = Setup::new();
        let mut queue = queue(&setup, features);
        let chain = Tabled::with_room(&setup.allocator(), features, 2);
        assert_eq!(queue.add(chain).unwrap_err().reason, AddReason::TooLong);
    }
}

#[test]
fn a_device_that_cannot_read_the_table_finds_the_segments_in_the_ring() {
    for packed in [false, true] {
        let plain = RingFeatures::NONE.with_packed(packed);
        let other = plain.with_packed(!packed).with_indirect(true);
        for (ring, table) in [
            (plain, plain),
            (plain, other),
            (other.with_packed(packed), other),
        ] {
            let setup = Setup::new();
            let mut queue = queue(&setup, ring);
            let mut device = Device::of(&queue, ring, &setup);
            let chain = Tabled::new(&setup, table);
            let places = chain.places();
            queue.add(chain).unwrap();
            let _ = queue.publish();
            assert_eq!((queue.free(), pop(&mut device)), (5, (3, places.to_vec())));
        }
    }
}

#[test]
fn a_chain_keeps_its_table_when_the_ring_starts_again() {
    for features in both_formats() {
        let setup = Setup::new();
        let mut queue = queue(&setup, features);
        let chain = Tabled::new(&setup, features);
        let places = chain.places();
        queue.add(chain).unwrap();
        let _ = queue.publish();
        queue.rewind().unwrap();
        let mut device = Device::start(&queue, features, &setup);
        assert_eq!(pop(&mut device), (1, places.to_vec()));
    }
}
