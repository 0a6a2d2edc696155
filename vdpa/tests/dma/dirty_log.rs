//! Who may have a log of dirty pages, what marks the rings in it, and how long its memory lives.

use std::sync::Arc;

use vdpa::device::{Attachment, Removal};
use vdpa::dirty::{DirtyPages, LogError, PAGE_SIZE};
use vdpa::iotlb::Permission;
use vdpa::ops::{Abilities, DirtyLog, OpError, QueueAddress};
use vdpa::testing::Resets;
use virtio::DeviceStatus;
use virtq::{DmaAddr, SharedMemory};

use crate::world::{Model, PAGE, RW, World, backing};

/// How long the log is, in bytes: it ends inside of its page.
const LEN: u64 = 0x808;

/// A device whose features have been agreed on, and a page for a bitmap that it reaches.
struct Logging {
    world: World,
    attachment: Arc<Attachment>,
    memory: SharedMemory,
    log: DirtyLog,
}

impl Logging {
    fn new(model: Model) -> Self {
        Self::with(World::new(model))
    }

    fn with(world: World) -> Self {
        let attachment = world.attach().unwrap();
        let memory = world.memory(2);
        let range = world.range(&memory, 0, 2);
        attachment.map(0, range, RW, backing(&memory, 0)).unwrap();
        let base = DmaAddr(range.first() + PAGE);
        let log = DirtyLog { base, len: LEN };
        let logging = Self {
            world,
            attachment,
            memory,
            log,
        };
        logging.agree(virtio::F::VERSION_1);
        logging.world.parent.take_log();
        logging
    }

    fn agree(&self, features: impl Into<vdpa::Features>) {
        let device = &self.world.device;
        let features = features.into() | virtio::F::ACCESS_PLATFORM.into();
        self.world.platform.block_on(async {
            device.set_status(driver()).await.unwrap();
            device.set_driver_features(features).unwrap();
            device.set_status(agreed()).await.unwrap();
        });
    }

    /// Lets the device run with its first queue, of 64 entries.
    fn run(&self) {
        self.run_at(rings());
    }

    fn run_at(&self, rings: QueueAddress) {
        let device = &self.world.device;
        self.world.platform.block_on(async {
            device.set_queue_size(0, 64).unwrap();
            // SAFETY: the fake has no memory to find there.
            unsafe { device.set_queue_address(0, rings) }.unwrap();
            device.start_queue(0).await.unwrap();
            let status = agreed() | DeviceStatus::DRIVER_OK;
            device.set_status(status).await.unwrap();
        });
    }

    fn start(&self) -> Result<(), LogError> {
        self.start_at(self.log.base.0, self.log.len)
    }

    fn start_at(&self, base: u64, len: u64) -> Result<(), LogError> {
        let base = DmaAddr(base);
        // SAFETY: the bitmap is memory of its own.
        let started = unsafe { self.attachment.start_dirty_log(DirtyLog { base, len }) };
        self.world.platform.block_on(started)
    }

    fn stop(&self) -> Result<(), LogError> {
        let stopped = self.attachment.stop_dirty_log();
        self.world.platform.block_on(stopped)
    }

    /// The pages in the bitmap, as its owner sees them.
    fn bits(&self) -> Vec<u64> {
        let mut pages = DirtyPages::new();
        pages.take(&self.memory, PAGE, LEN).unwrap();
        pages.iter().collect()
    }

    fn taken(&self) -> Result<Vec<u64>, LogError> {
        let mut pages = DirtyPages::new();
        self.attachment.take_dirty_pages(&mut pages)?;
        Ok(pages.iter().collect())
    }

    fn suspend(&self) {
        let suspended = self.world.device.suspend();
        self.world.platform.block_on(suspended).unwrap();
    }

    fn resume(&self) {
        let resumed = self.world.device.resume();
        self.world.platform.block_on(resumed).unwrap();
    }

    /// Bytes of memory that somebody keeps alive.
    fn kept(&self) -> usize {
        self.world.platform.heap().outstanding()
    }
}

fn driver() -> DeviceStatus {
    DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER
}

fn agreed() -> DeviceStatus {
    driver() | DeviceStatus::FEATURES_OK
}

/// Rings whose parts lie in pages of their own, the used ring in two.
fn rings() -> QueueAddress {
    QueueAddress {
        descriptor: DmaAddr(16 * PAGE_SIZE),
        driver: DmaAddr(20 * PAGE_SIZE),
        device: DmaAddr(31 * PAGE_SIZE - 8),
    }
}

fn device_error(error: OpError) -> LogError {
    LogError::Device(error)
}

#[test]
fn the_device_is_told_of_a_log_that_can_be() {
    for model in Model::ALL {
        let logging = Logging::new(model);
        assert_eq!(logging.start(), Ok(()), "{model:?}");
        let base = logging.log.base;
        let told = logging.world.parent.take_log();
        assert_eq!(told, [format!("start_dirty_log({base:#x}, {LEN})")]);
        assert_eq!(logging.stop(), Ok(()));
        assert_eq!(logging.world.parent.take_log(), ["stop_dirty_log"]);
        assert_eq!(logging.start(), Ok(()), "it can be started again");
    }
}

#[test]
fn what_is_no_bitmap_is_refused_and_the_device_not_told() {
    for model in Model::ALL {
        let logging = Logging::new(model);
        let base = logging.log.base.0;
        let start = |base, len| logging.start_at(base, len);
        assert_eq!(start(base, 0), Err(LogError::BadRange));
        assert_eq!(start(base + 8, 8), Err(LogError::BadRange));
        let last = u64::MAX - PAGE + 1;
        assert_eq!(start(last, PAGE + 1), Err(LogError::BadRange));
        assert_eq!(start(last, PAGE), Err(LogError::NotMapped));
        assert_eq!(start(base, PAGE + 1), Err(LogError::NotMapped));
        assert_eq!(start(base, u64::MAX - base), Err(LogError::NotMapped));
        assert_eq!(start(base + PAGE, 1), Err(LogError::NotMapped));
        assert!(logging.world.parent.take_log().is_empty(), "{model:?}");
        assert_eq!(start(base, PAGE), Ok(()));
    }
}

#[test]
fn a_bitmap_that_the_device_may_not_write_or_read_is_refused() {
    for model in Model::ALL {
        for permission in [Permission::READ, Permission::WRITE] {
            let logging = Logging::new(model);
            let attachment = &logging.attachment;
            let memory = logging.world.memory(1);
            let range = match model {
                Model::Nobody => logging.world.range(&memory, 0, 1),
                _ => logging.world.range(&memory, 8, 1),
            };
            let mapped = attachment.map(0, range, permission, backing(&memory, 0));
            mapped.unwrap();
            let answer = logging.start_at(range.first(), 8);
            assert_eq!(answer, Err(LogError::NotMapped), "{model:?}");
        }
    }
}

#[test]
fn each_reason_has_an_error_of_its_own() {
    for model in Model::ALL {
        let logging = Logging::new(model);
        assert_eq!(logging.stop(), Err(LogError::NotRunning));
        assert_eq!(logging.taken(), Err(LogError::NotRunning));
        logging.start().unwrap();
        assert_eq!(logging.start(), Err(LogError::Running));

        logging.world.reset();
        assert_eq!(logging.stop(), Err(LogError::NotRunning));
        let early = Err(device_error(OpError::WrongState));
        assert_eq!(logging.start(), early, "before FEATURES_OK");

        logging.world.detach(&logging.attachment);
        let successor = logging.world.attach().unwrap();
        logging.agree(virtio::F::VERSION_1);
        let foreign = Err(device_error(OpError::NotOwner));
        assert_eq!(logging.start(), foreign);
        assert_eq!(logging.stop(), foreign);
        assert_eq!(
            logging.taken().map(drop),
            Err(device_error(OpError::NotOwner))
        );
        drop(successor);

        let logging = Logging::with(World::with_traits(model, |traits| {
            traits.abilities.remove(Abilities::DIRTY_LOG);
        }));
        let unsupported = Err(device_error(OpError::Unsupported));
        assert_eq!(logging.start(), unsupported);
        assert_eq!(logging.stop(), unsupported);

        let logging = Logging::new(model);
        let removed = logging
            .world
            .bus
            .unregister(&logging.world.device, Removal::Orderly);
        logging.world.platform.block_on(removed);
        let gone = Err(device_error(OpError::Gone));
        assert_eq!(logging.start(), gone, "{model:?}");
        assert_eq!(logging.stop(), gone);
    }
}

#[test]
fn a_log_that_the_device_refuses_is_none_and_its_memory_is_not_kept() {
    for model in Model::ALL {
        let logging = Logging::new(model);
        logging.world.parent.fail_after(0, OpError::Broken);
        assert_eq!(logging.start(), Err(device_error(OpError::Broken)));
        assert_eq!(logging.taken(), Err(LogError::NotRunning));
        assert_eq!(logging.start(), Ok(()), "{model:?}");
    }
}

/// The bytes that `memory` holds are free unless something else keeps them.
fn let_go(logging: Logging) -> (World, Arc<Attachment>) {
    let range = logging.world.range(&logging.memory, 0, 2);
    logging.attachment.unmap(0, range).unwrap();
    let Logging {
        world, attachment, ..
    } = logging;
    (world, attachment)
}

#[test]
fn the_memory_of_a_log_lives_until_it_is_stopped() {
    for model in Model::ALL {
        let logging = Logging::new(model);
        logging.run();
        logging.start().unwrap();
        let kept = logging.kept();
        let (world, attachment) = let_go(logging);
        let heap = world.platform.heap();
        assert_eq!(heap.outstanding(), kept, "{model:?}");
        // If the device may go on writing, its memory has to be there.
        world.parent.fail_after(0, OpError::Timeout);
        let stop = || world.platform.block_on(attachment.stop_dirty_log());
        assert_eq!(stop(), Err(device_error(OpError::Timeout)));
        assert_eq!(heap.outstanding(), kept);
        assert_eq!(stop(), Ok(()));
        assert_eq!(heap.outstanding(), 0, "{model:?}");
    }
}

#[test]
fn the_memory_of_a_log_lives_until_a_reset_has_succeeded() {
    for model in Model::ALL {
        let logging = Logging::new(model);
        logging.run();
        logging.start().unwrap();
        let (world, attachment) = let_go(logging);
        drop(attachment);
        let heap = world.platform.heap();
        assert_eq!(heap.outstanding(), 0x2000, "the device runs: {model:?}");
        world.parent.set_resets(Resets::Never);
        let failed = world.platform.block_on(world.device.reset());
        assert_eq!(failed, Err(OpError::Timeout));
        assert_eq!(heap.outstanding(), 0x2000, "{model:?}");
        world.parent.set_resets(Resets::Promptly);
        world.reset();
        assert_eq!(heap.outstanding(), 0, "{model:?}");
        assert_eq!(world.device.owner(), None);
    }
}

#[test]
fn a_device_that_is_lost_keeps_its_log_until_a_reset_helps() {
    let logging = Logging::new(Model::Iommu);
    logging.run();
    logging.start().unwrap();
    logging.world.parent.set_resets(Resets::Never);
    let failed = logging.world.device.reset();
    assert_eq!(
        logging.world.platform.block_on(failed),
        Err(OpError::Timeout)
    );
    let wrong = Err(device_error(OpError::WrongState));
    assert_eq!(logging.stop(), wrong);
    assert_eq!(
        logging.taken().map(drop),
        Ok(()),
        "what there is can be read"
    );
    logging.world.parent.set_resets(Resets::Promptly);
    logging.world.reset();
    assert_eq!(logging.stop(), Err(LogError::NotRunning));
}

#[test]
fn the_memory_of_a_log_is_free_when_its_device_has_gone() {
    for model in Model::ALL {
        for removal in [Removal::Orderly, crate::world::surprise()] {
            let logging = Logging::new(model);
            logging.run();
            logging.start().unwrap();
            let (world, attachment) = let_go(logging);
            let removed = world.bus.unregister(&world.device, removal);
            world.platform.block_on(removed);
            let heap = world.platform.heap();
            assert_eq!(heap.outstanding(), 0, "{model:?}, {removal:?}");
            assert_eq!(world.platform.block_on(attachment.detach()), Ok(()));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it leaks, on purpose")]
fn the_memory_of_a_log_that_may_be_written_for_ever_is_never_free_again() {
    for model in Model::ALL {
        let logging = Logging::new(model);
        logging.run();
        logging.start().unwrap();
        let (world, attachment) = let_go(logging);
        drop(attachment);
        world.parent.set_resets(Resets::Never);
        let removed = world.bus.unregister(&world.device, Removal::Orderly);
        world.platform.block_on(removed);
        let World {
            platform,
            parent,
            device,
            ..
        } = world;
        drop((parent, device));
        assert_eq!(platform.heap().outstanding(), 0x2000, "{model:?}");
    }
}

/// The pages of the used ring of [`rings`].
const USED: [u64; 2] = [30, 31];

#[test]
fn the_rings_are_marked_when_the_device_has_come_to_rest() {
    let logging = Logging::new(Model::Iommu);
    logging.run();
    logging.start().unwrap();
    assert_eq!(logging.bits(), [], "it runs");
    logging.suspend();
    assert_eq!(logging.bits(), USED);
    logging.suspend();
    assert_eq!(logging.bits(), [], "it has written nothing since");
    logging.resume();
    let stopped = logging.world.device.stop_queue(0);
    logging.world.platform.block_on(stopped).unwrap();
    assert_eq!(logging.bits(), USED);
    logging.suspend();
    assert_eq!(logging.bits(), [], "the queue had been stopped");
    logging.resume();
    let started = logging.world.device.start_queue(0);
    logging.world.platform.block_on(started).unwrap();
    logging.stop().unwrap();
    assert_eq!(logging.bits(), USED, "nobody else will tell");
    logging.suspend();
    assert_eq!(logging.bits(), [], "the log has ended");
}

#[test]
fn the_rings_are_marked_by_a_reset_and_only_if_the_device_ran() {
    for started in [true, false] {
        let logging = Logging::new(Model::Iommu);
        if started {
            logging.run();
        }
        logging.start().unwrap();
        logging.world.reset();
        let expected: &[u64] = if started { &USED } else { &[] };
        assert_eq!(logging.bits(), expected);
    }
}

#[test]
fn the_rings_of_a_packed_queue_are_its_descriptors_and_its_event_suppression() {
    let logging = Logging::new(Model::Iommu);
    logging.world.reset();
    logging.agree(virtio::F::VERSION_1 | virtio::F::RING_PACKED);
    logging.run();
    logging.start().unwrap();
    logging.suspend();
    assert_eq!(logging.bits(), [16, 30]);

    // 16 bytes for each descriptor: the last of 64 lies in the next page, or ends with the page.
    for (start, pages) in [
        (17 * PAGE_SIZE - 63 * 16, &[16, 17, 30][..]),
        (17 * PAGE_SIZE - 64 * 16, &[16, 30]),
    ] {
        let logging = Logging::new(Model::Iommu);
        logging.world.reset();
        logging.agree(virtio::F::VERSION_1 | virtio::F::RING_PACKED);
        logging.run_at(QueueAddress {
            descriptor: DmaAddr(start),
            ..rings()
        });
        logging.start().unwrap();
        logging.suspend();
        assert_eq!(logging.bits(), pages);
    }
}

#[test]
fn a_reader_of_a_running_device_is_told_of_the_rings() {
    let logging = Logging::new(Model::Iommu);
    logging.start().unwrap();
    assert_eq!(logging.taken().unwrap(), [], "it does not run");
    logging.run();
    logging.memory.set_bits(PAGE + 1, 1).unwrap();
    assert_eq!(logging.taken().unwrap(), [8, 30, 31]);
    assert_eq!(logging.taken().unwrap(), USED, "it still runs");
    logging.suspend();
    assert_eq!(logging.taken().unwrap(), USED);
    assert_eq!(logging.taken().unwrap(), [], "it is at rest");
}

#[test]
fn rings_beyond_the_end_of_the_log_are_not_marked() {
    let logging = Logging::new(Model::Iommu);
    logging.run();
    // Pages 0 to 23, and the used ring lies behind.
    logging.start_at(logging.log.base.0, 3).unwrap();
    assert_eq!(logging.taken().unwrap(), []);
    logging.suspend();
    logging.resume();
    logging.stop().unwrap();
    assert_eq!(logging.bits(), []);
}
