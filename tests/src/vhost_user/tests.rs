//! The device against a front-end and a driver that do what QEMU and well-behaved guests do not.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{
    Frontend, VhostUserBackendReqHandlerMut, VhostUserFrontend, VhostUserProtocolFeatures,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio::blk::{S, T};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::backend::Backend;
use super::{Access, Disk, Report, Server};

/// Sectors of the disk.
const SECTORS: u64 = 64;

/// Where the front-end claims to have the guest's memory, and how much that is.
const USER: u64 = 0x7f00_0000_0000;
const GUEST: u64 = 0x4000_0000;
const MEMORY: u64 = 0x10000;

/// Where the driver keeps what, from the start of the memory.
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const HEADER: u64 = 0x3000;
const DATA: u64 = 0x4000;
const STATUS: u64 = 0x8000;

const SIZE: u16 = 4;

/// An answer that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A status that no device gives.
const UNTOUCHED: u8 = 0xee;

const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;

/// A front-end and its driver, with one request at a time.
struct Guest {
    server: Server,
    front_end: Frontend,
    memory: MmapRegion,
    kick: EventFd,
    call: EventFd,
    error: EventFd,
    next: u16,
}

impl Guest {
    /// With a disk whose byte at each place is the number of its sector.
    fn new(access: Access) -> Self {
        let bytes: Vec<u8> = (0..SECTORS)
            .flat_map(|sector| [sector as u8; 512])
            .collect();
        let mut image = tempfile::tempfile().unwrap();
        image.write_all(&bytes).unwrap();
        let server = Server::start(Disk::new(image, access, "id").unwrap(), 2).unwrap();

        let stream = UnixStream::connect(server.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut front_end = Frontend::from_stream(stream, 2);
        front_end.set_owner().unwrap();
        let features = front_end.get_features().unwrap();
        let protocol = front_end.get_protocol_features().unwrap();
        assert!(protocol.contains(VhostUserProtocolFeatures::CONFIG));
        front_end.set_protocol_features(protocol).unwrap();
        front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let ring = (virtio::F::RING_PACKED | virtio::F::EVENT_IDX | virtio::F::INDIRECT_DESC)
            .bits()
            .to_ne();
        front_end
            .set_features(features & !u64::try_from(ring).unwrap())
            .unwrap();

        let memory = map_memory();
        share_memory(&front_end, &memory);
        let counter = || EventFd::new(EFD_NONBLOCK).unwrap();
        let mut guest = Self {
            server,
            front_end,
            memory,
            kick: counter(),
            call: counter(),
            error: counter(),
            next: 0,
        };
        guest.start(0);
        guest
    }

    /// Gives the device a copy of the memory in place of it.
    fn move_memory(&mut self) {
        const LEN: usize = MEMORY as usize;
        let contents: [u8; LEN] = self.get(0);
        self.put(0, &[0xff; LEN]);
        let memory = map_memory();
        memory
            .as_volatile_slice()
            .write_slice(&contents, 0)
            .unwrap();
        share_memory(&self.front_end, &memory);
        self.memory = memory;
    }

    /// Sets the ring up and lets it go on from `base`.
    fn start(&mut self, base: u16) {
        let addresses = VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            desc_table_addr: USER + DESCRIPTORS,
            avail_ring_addr: USER + AVAILABLE,
            used_ring_addr: USER + USED,
            ..VringConfigData::default()
        };
        self.front_end.set_vring_num(0, SIZE).unwrap();
        self.front_end.set_vring_base(0, base).unwrap();
        self.front_end.set_vring_addr(0, &addresses).unwrap();
        self.front_end.set_vring_call(0, &self.call).unwrap();
        self.front_end.set_vring_err(0, &self.error).unwrap();
        self.front_end.set_vring_kick(0, &self.kick).unwrap();
        self.front_end.set_vring_enable(0, true).unwrap();
        // Either counter is raised once when it is connected.
        self.call.read().unwrap();
        self.error.read().unwrap();
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap();
        self.memory
            .as_volatile_slice()
            .write_slice(bytes, at)
            .unwrap();
    }

    fn get<const LEN: usize>(&self, at: u64) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let at = usize::try_from(at).unwrap();
        self.memory
            .as_volatile_slice()
            .read_slice(&mut bytes, at)
            .unwrap();
        bytes
    }

    /// Offers a chain of these segments: place, length, flags.
    fn offer(&mut self, head: u16, segments: &[(u64, u32, u16)]) {
        for (index, (place, len, flags)) in (0_u16..).zip(segments) {
            let last = usize::from(index) + 1 == segments.len();
            let flags = flags | if last { 0 } else { F_NEXT };
            let at = DESCRIPTORS + 16 * u64::from(index);
            self.put(at, &(GUEST + place).to_le_bytes());
            self.put(at + 8, &len.to_le_bytes());
            self.put(at + 12, &flags.to_le_bytes());
            self.put(at + 14, &(index + 1).to_le_bytes());
        }
        let slot = u64::from(self.next % SIZE);
        self.put(AVAILABLE + 4 + 2 * slot, &head.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        self.put(AVAILABLE + 2, &self.next.to_le_bytes());
        self.kick.write(1).unwrap();
    }

    /// Sends a request with `data`, which the device writes if `flags` say so. Its status, and how
    /// many bytes the device says it wrote.
    fn request(&mut self, kind: u32, sector: u64, data: u32, flags: u16) -> (S, u32) {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.put(HEADER, &header);
        self.put(STATUS, &[UNTOUCHED]);
        let data = (DATA, data, flags);
        self.offer(0, &[(HEADER, 16, 0), data, (STATUS, 1, F_WRITE)]);
        wait(&self.call);
        assert_eq!(self.get::<2>(USED + 2), self.next.to_le_bytes());
        let slot = u64::from(self.next.wrapping_sub(1) % SIZE);
        let written = u32::from_le_bytes(self.get(USED + 4 + 8 * slot + 4));
        (self.status().unwrap(), written)
    }

    /// What the device has answered, if it has.
    fn status(&self) -> Option<S> {
        S::try_from(self.get::<1>(STATUS)[0]).ok()
    }

    fn read(&mut self, sector: u64, length: u32) -> (S, u32) {
        self.request(T::In.into(), sector, length, F_WRITE)
    }

    fn write(&mut self, sector: u64, length: u32) -> (S, u32) {
        self.request(T::Out.into(), sector, length, 0)
    }

    fn end(self) -> Report {
        drop(self.front_end);
        self.server.finish()
    }
}

/// Memory for a guest.
fn map_memory() -> MmapRegion {
    let file = tempfile::tempfile().unwrap();
    file.set_len(MEMORY).unwrap();
    let size = usize::try_from(MEMORY).unwrap();
    MmapRegion::from_file(FileOffset::new(file, 0), size).unwrap()
}

/// Makes `memory` the guest's.
fn share_memory(front_end: &Frontend, memory: &MmapRegion) {
    let table = [VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST,
        memory_size: MEMORY,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: memory.file_offset().unwrap().file().as_raw_fd(),
    }];
    front_end.set_mem_table(&table).unwrap();
}

/// Waits until the counter was raised, and sets it back.
fn wait(counter: &EventFd) {
    until(|| counter.read().is_ok());
}

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "the device does not answer");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn sectors_are_read_written_and_flushed() {
    let mut guest = Guest::new(Access::ReadWrite);
    assert_eq!(guest.read(5, 1024), (S::Ok, 1025));
    assert_eq!(guest.get::<1024>(DATA), [[5; 512], [6; 512]].concat()[..]);
    guest.put(DATA, &[0xab; 512]);
    assert_eq!(guest.write(SECTORS - 1, 512), (S::Ok, 1));
    assert_eq!(guest.request(T::Flush.into(), 0, 0, 0), (S::Ok, 1));
    guest.put(DATA, &[0; 512]);
    assert_eq!(guest.read(SECTORS - 1, 512), (S::Ok, 513));
    assert_eq!(guest.get::<512>(DATA), [0xab; 512]);
    let report = guest.end();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(report.queues[0].completed, 4);
}

#[test]
fn sectors_that_are_not_there_are_refused() {
    let mut guest = Guest::new(Access::ReadWrite);
    for (sector, length) in [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (u64::MAX / 512 + 1, 512),
        (0, 511),
        (0, 513),
    ] {
        let failed = S::Ioerr;
        assert_eq!(
            guest.read(sector, length).0,
            failed,
            "read {sector}, {length}"
        );
        assert_eq!(
            guest.write(sector, length).0,
            failed,
            "write {sector}, {length}"
        );
    }
    assert_eq!(guest.read(0, 512).0, S::Ok);
    assert_eq!(guest.end().requests.failed, 14);
}

#[test]
fn requests_that_were_not_offered_are_not_supported() {
    let mut guest = Guest::new(Access::ReadWrite);
    let kinds = [T::Discard, T::WriteZeroes, T::SecureErase, T::GetLifetime].map(u32::from);
    for kind in kinds.into_iter().chain([2, 0xffff_ffff]) {
        assert_eq!(guest.request(kind, 0, 16, 0).0, S::Unsupp, "{kind}");
    }
    assert_eq!(guest.read(0, 512).0, S::Ok);
    assert_eq!(guest.get::<512>(DATA), [0; 512]);
    assert_eq!(guest.end().requests.unsupported, 6);
}

#[test]
fn identity_fills_what_room_there_is() {
    let mut guest = Guest::new(Access::ReadWrite);
    guest.put(DATA, &[1; 32]);
    assert_eq!(guest.request(T::GetId.into(), 0, 20, F_WRITE), (S::Ok, 21));
    assert_eq!(
        guest.get::<21>(DATA),
        *b"id\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"
    );
    guest.put(DATA, &[1; 32]);
    assert_eq!(guest.request(T::GetId.into(), 0, 1, F_WRITE), (S::Ok, 2));
    assert_eq!(guest.get::<2>(DATA), *b"i\x01");
}

#[test]
fn read_only_disk_keeps_its_bytes() {
    let mut guest = Guest::new(Access::ReadOnly);
    let read_only = u64::try_from(virtio::blk::F::RO.bits().to_ne()).unwrap();
    assert_ne!(guest.front_end.get_features().unwrap() & read_only, 0);
    guest.put(DATA, &[0xab; 512]);
    assert_eq!(guest.write(3, 512), (S::Ioerr, 1));
    assert_eq!(guest.read(3, 512).0, S::Ok);
    assert_eq!(guest.get::<512>(DATA), [3; 512]);
}

#[test]
fn buffer_outside_the_memory_fails_the_request_and_not_the_queue() {
    let mut guest = Guest::new(Access::ReadWrite);
    guest.put(HEADER, &[0; 16]);
    guest.put(STATUS, &[UNTOUCHED]);
    guest.offer(
        0,
        &[
            (HEADER, 16, 0),
            (MEMORY - 256, 512, F_WRITE),
            (STATUS, 1, F_WRITE),
        ],
    );
    wait(&guest.call);
    assert_eq!(guest.status(), Some(S::Ioerr));
    assert_eq!(guest.read(1, 512).0, S::Ok);
    assert!(guest.end().faults.is_empty());
}

#[test]
fn chain_without_room_for_a_status_comes_back_empty() {
    let mut guest = Guest::new(Access::ReadWrite);
    guest.put(HEADER, &[0; 16]);
    guest.offer(0, &[(HEADER, 16, 0)]);
    wait(&guest.call);
    assert_eq!(guest.get::<8>(USED + 4), [0; 8]);
    assert_eq!(guest.read(1, 512).0, S::Ok);
}

#[test]
fn head_outside_the_ring_breaks_the_queue_and_the_front_end_is_told() {
    let mut guest = Guest::new(Access::ReadWrite);
    assert_eq!(guest.read(1, 512).0, S::Ok);
    guest.offer(SIZE, &[(HEADER, 16, 0)]);
    wait(&guest.error);
    assert!(guest.front_end.get_vring_base(0).is_err());
    let faults = guest.end().faults.join("; ");
    assert!(
        faults.contains("queue 0: the driver broke the queue"),
        "{faults}"
    );
}

#[test]
fn stopped_queue_goes_on_where_it_stood() {
    let mut guest = Guest::new(Access::ReadWrite);
    for sector in 0..6 {
        assert_eq!(guest.read(sector, 512).0, S::Ok);
    }
    assert_eq!(guest.front_end.get_vring_base(0).unwrap(), 6);
    // Stopped: what is offered now waits.
    guest.put(STATUS, &[UNTOUCHED]);
    guest.offer(
        0,
        &[(HEADER, 16, 0), (DATA, 512, F_WRITE), (STATUS, 1, F_WRITE)],
    );
    thread::sleep(Duration::from_millis(20));
    assert_eq!(guest.status(), None);
    guest.start(6);
    until(|| guest.status() == Some(S::Ok));
    assert_eq!(guest.front_end.get_vring_base(0).unwrap(), 7);
    let report = guest.end();
    assert!(report.resumed > 0);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

#[test]
fn ring_outside_the_memory_is_refused() {
    let guest = Guest::new(Access::ReadWrite);
    let addresses = VringConfigData {
        queue_max_size: SIZE,
        queue_size: SIZE,
        desc_table_addr: USER + MEMORY,
        avail_ring_addr: USER + AVAILABLE,
        used_ring_addr: USER + USED,
        ..VringConfigData::default()
    };
    assert!(guest.front_end.set_vring_addr(0, &addresses).is_err());
}

#[test]
fn configuration_is_as_long_as_it_is() {
    let disk = Disk::new(tempfile::tempfile().unwrap(), Access::ReadWrite, "").unwrap();
    let mut backend = Backend::new(Arc::new(disk), 2);
    let mut config = |offset, size| backend.get_config(offset, size, VhostUserConfigFlags::empty());
    assert_eq!(config(34, 2).unwrap(), 2_u16.to_le_bytes());
    for (offset, size) in [(60, 8), (64, 1), (0, 65), (u32::MAX, 1), (1, u32::MAX)] {
        assert!(config(offset, size).is_err(), "{offset}, {size}");
    }
}

#[test]
fn front_end_reads_the_capacity_and_the_number_of_queues() {
    let mut guest = Guest::new(Access::ReadWrite);
    let flags = VhostUserConfigFlags::empty();
    let (_, bytes) = guest.front_end.get_config(0, 60, flags, &[0; 60]).unwrap();
    assert_eq!(bytes[..8], SECTORS.to_le_bytes());
    assert_eq!(bytes[34..36], 2_u16.to_le_bytes());
    assert_eq!(guest.front_end.get_queue_num().unwrap(), 2);
}

#[test]
fn queue_that_runs_follows_to_other_memory() {
    let mut guest = Guest::new(Access::ReadWrite);
    for sector in 0..3 {
        assert_eq!(guest.read(sector, 512).0, S::Ok);
    }
    guest.move_memory();
    assert_eq!(guest.read(9, 512), (S::Ok, 513));
    assert_eq!(guest.get::<512>(DATA), [9; 512]);
    let report = guest.end();
    assert_eq!(report.resumed, 1);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}
