//! A disk that is up, and the device that answers its requests.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use vdpa::Platform;
use vdpa::testing::{FakeParent, FakePlatform, Request};
use virtio::blk::F;
use virtio_blk::{BlkDriver, Disk};
use virtio_bus::Registry;

use crate::common::{Alarm, Hardware, World, with_alarm};

pub(crate) const QUEUE: u16 = 0;
/// 128 MiB.
pub(crate) const SECTORS: u64 = 262_144;

pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const GET_ID: u32 = 8;

/// How the test's disk differs from a plain one.
pub(crate) struct Setup {
    pub(crate) features: F,
    pub(crate) capacity: u64,
    pub(crate) size_max: u32,
    pub(crate) seg_max: u32,
    pub(crate) blk_size: u32,
    pub(crate) queue_size: u16,
}

impl Default for Setup {
    fn default() -> Self {
        let (size_max, seg_max, blk_size) = (4096, 4, 4096);
        let features = F::FLUSH | F::INDIRECT_DESC;
        Self {
            features,
            capacity: SECTORS,
            size_max,
            seg_max,
            blk_size,
            queue_size: 256,
        }
    }
}

impl Setup {
    pub(crate) fn with(features: F) -> Self {
        let plain = Self::default();
        Self {
            features: plain.features | features,
            ..plain
        }
    }

    /// `virtio_blk_config` up to the block size.
    fn config(&self) -> Vec<u8> {
        let mut config = self.capacity.to_le_bytes().to_vec();
        for field in [self.size_max, self.seg_max, 0, self.blk_size] {
            config.extend(field.to_le_bytes());
        }
        config
    }

    pub(crate) fn world_on(
        &self,
        platform: Arc<FakePlatform>,
        driver: BlkDriver,
        set_up: impl FnOnce(&FakeParent),
    ) -> World {
        World::new(
            &self.hardware(&self.config()),
            Arc::new(driver),
            platform,
            set_up,
        )
    }

    pub(crate) fn world_on_kernel(
        &self,
        platform: Arc<FakePlatform>,
        kernel: Arc<dyn Platform>,
        driver: BlkDriver,
    ) -> World {
        let config = self.config();
        let hardware = self.hardware(&config);
        World::on_kernel(&hardware, Arc::new(driver), platform, kernel, |_| {})
    }

    fn hardware<'a>(&'a self, config: &'a [u8]) -> Hardware<'a> {
        Hardware {
            device_type: virtio::Id::Block,
            features: self.features.into(),
            queue_sizes: std::slice::from_ref(&self.queue_size),
            config,
        }
    }

    pub(crate) fn world(&self, registry: &Arc<Registry<Disk>>) -> World {
        let driver = BlkDriver::new(Arc::clone(registry));
        self.world_on(FakePlatform::new(), driver, |_| {})
    }

    pub(crate) fn start(&self) -> Blk {
        let registry = Registry::new();
        let world = self.world(&registry);
        Blk::take(world, registry)
    }
}

/// A running disk.
pub(crate) struct Blk {
    pub(crate) disk: Disk,
    pub(crate) registry: Arc<Registry<Disk>>,
    pub(crate) world: World,
}

/// A request as the device sees it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) kind: u32,
    pub(crate) sector: u64,
    /// What is to be written to the disk.
    pub(crate) data: Vec<u8>,
    /// How many bytes may be written to memory, without the status.
    pub(crate) room: usize,
    pub(crate) request: Request,
}

impl Blk {
    /// The disk that the driver has published.
    pub(crate) fn take(world: World, registry: Arc<Registry<Disk>>) -> Self {
        let disk = registry.take().expect("the driver has published a disk");
        Self {
            disk,
            registry,
            world,
        }
    }

    /// The next request that the driver has made.
    pub(crate) fn next(&self) -> Option<Seen> {
        let request = self.world.parent.pop(QUEUE)?;
        let bytes = self.world.parent.read(QUEUE, &request);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(word(4), 0, "reserved");
        assert_eq!(request.readable[0].len, 16, "the header");
        let status = request.writable.last().expect("room for the status");
        assert_eq!(status.len, 1);
        let room: u32 = request.writable.iter().map(|segment| segment.len).sum();
        Some(Seen {
            kind: word(0),
            sector: u64::from(word(8)) | u64::from(word(12)) << 32,
            data: bytes[16..].to_vec(),
            room: room as usize - 1,
            request,
        })
    }

    /// Answers a request with data and a status behind it.
    pub(crate) fn answer(&self, seen: &Seen, data: &[u8], status: u8) {
        let bytes = [data, &[status]].concat();
        self.world.parent.complete(QUEUE, &seen.request, &bytes);
        self.world.platform.run_until_stalled();
    }

    /// Runs a request whose device answers each part at once, by `medium`.
    pub(crate) fn serve<T>(
        &self,
        request: impl Future<Output = T>,
        mut medium: impl FnMut(&Seen) -> (Vec<u8>, u8),
    ) -> T {
        let alarm = Arc::<Alarm>::default();
        let mut request = pin!(request);
        for _ in 0..10_000 {
            if let Poll::Ready(result) = with_alarm(&alarm, |cx| request.as_mut().poll(cx)) {
                return result;
            }
            while let Some(seen) = self.next() {
                let (data, status) = medium(&seen);
                self.answer(&seen, &data, status);
            }
        }
        panic!("the request does not end");
    }

    /// Ends a request that must not reach the device.
    pub(crate) fn refused<T>(&self, request: impl Future<Output = T>) -> T {
        self.serve(request, |seen| panic!("{seen:?} reached the device"))
    }
}

/// The contents of a disk.
pub(crate) struct Medium(pub(crate) Vec<u8>);

impl Medium {
    /// As many sectors of a pattern in which no two sectors are the same.
    pub(crate) fn new(sectors: usize) -> Self {
        Self(
            (0..sectors * 512)
                .map(|i| (i / 512) as u8 ^ (i % 251) as u8)
                .collect(),
        )
    }

    pub(crate) fn range(&self, sector: u64, len: usize) -> &[u8] {
        &self.0[sector as usize * 512..][..len]
    }

    /// What a disk does.
    pub(crate) fn carry_out(&mut self, seen: &Seen) -> (Vec<u8>, u8) {
        let start = seen.sector as usize * 512;
        match seen.kind {
            IN => (self.0[start..start + seen.room].to_vec(), 0),
            OUT => {
                self.0[start..start + seen.data.len()].copy_from_slice(&seen.data);
                (Vec::new(), 0)
            }
            FLUSH => (Vec::new(), 0),
            GET_ID => (b"ringway-disk\0\0\0\0\0\0\0\0".to_vec(), 0),
            _ => (Vec::new(), 2),
        }
    }
}

/// Polls each future once and keeps those that are not ready; returns how many ended.
pub(crate) fn poll_all<F: Future + Unpin>(
    futures: &mut VecDeque<F>,
    mut ended: impl FnMut(F::Output),
) -> usize {
    let before = futures.len();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    futures.retain_mut(|future| match std::pin::Pin::new(future).poll(&mut cx) {
        Poll::Ready(output) => {
            ended(output);
            false
        }
        Poll::Pending => true,
    });
    before - futures.len()
}
