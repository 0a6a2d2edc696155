//! A client of vhost that does what it likes: requests in any order and with any numbers, and rings
//! full of noise.

use core::ops::RangeInclusive;

use embassy_futures::yield_now;
use vdpa::Features;
use vdpa::iotlb::Permission;
use vdpa::ops::{QueueAddress, QueueState};
use vhost_vdpa::{BackendFeatures, IotlbMessage, Request, VhostError, VhostHandle};
use virtio::DeviceStatus;
use virtq::{DeviceMemory, DmaAddr, SharedMemory};

use crate::bench::Bench;
use crate::ensure;
use crate::outcome::Outcome;

/// The client's memory: all of it is mapped, in pieces.
const MEMORY: usize = 64 * 1024;
const PAGE: u64 = 4096;

/// How often the client starts again.
const ROUNDS: usize = 40;
/// What it does between two starts.
const DEEDS: usize = 120;

/// Attacks the device, and closes it. An outcome other than success means that the attack has not
/// come far enough to mean anything.
pub async fn attack(bench: &Bench, handle: VhostHandle, seed: u64) -> Outcome {
    let memory = SharedMemory::new(&bench.system.platform().dma(), MEMORY)?;
    let first = handle.iova_range()?.first();
    let mut client = Hostile {
        handle,
        memory: DeviceMemory::open(&memory)?,
        first,
        random: Random(seed),
        running: 0,
    };
    client.handle.set_owner()?;
    for _ in 0..ROUNDS {
        client.round().await;
    }
    let Hostile {
        handle, running, ..
    } = client;
    ensure!(running > 0, "the client has never had a running device");
    ensure!(!handle.is_hung_up(), "the device was taken away");
    Ok(handle.close().await?)
}

struct Hostile {
    handle: VhostHandle,
    memory: DeviceMemory,
    /// The lowest address that can be mapped.
    first: u64,
    random: Random,
    /// How often the device has run.
    running: usize,
}

impl Hostile {
    /// From a reset to a device that runs, if its client was lucky, and what such a client does
    /// then.
    async fn round(&mut self) {
        // Whatever comes of each of these: that is for the other side to decide.
        let _ = self.handle.set_status(DeviceStatus::empty()).await;
        let _ = self.map_pieces();
        if self.bring_up().await.is_ok() {
            self.running += 1;
        }
        for _ in 0..DEEDS {
            self.scribble();
            match self.random.below(4) {
                0 => {
                    let request = self.any_request();
                    let _ = self.handle.request(request).await;
                }
                1 => {
                    let message = self.any_message();
                    let _ = self.handle.message(message);
                }
                2 => {
                    let (queue, place) = (self.any_queue(), self.random.next() as u16);
                    if let Ok(doorbell) = self.handle.doorbell(queue) {
                        doorbell.ring(place);
                    }
                }
                _ => yield_now().await,
            }
        }
    }

    /// Maps every page at an address of its own, some of them for reading only.
    fn map_pieces(&mut self) -> Result<(), VhostError> {
        for page in 0..MEMORY as u64 / PAGE {
            let permission = if self.random.below(8) == 0 {
                Permission::READ
            } else {
                Permission::READ | Permission::WRITE
            };
            self.handle.message(IotlbMessage::Update {
                asid: 0,
                iova: self.first + page * PAGE,
                size: PAGE,
                memory: self.memory.clone(),
                offset: page * PAGE,
                permission,
            })?;
        }
        Ok(())
    }

    /// Sets up the device as an honest client would, over rings that hold noise.
    async fn bring_up(&mut self) -> Result<(), VhostError> {
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        self.handle.set_status(status).await?;
        let mandatory = Features::from(virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM);
        let wanted = self.any_features() | mandatory;
        let features = self.handle.features()?.intersection(wanted);
        self.handle.set_features(features)?;
        status |= DeviceStatus::FEATURES_OK;
        self.handle.set_status(status).await?;
        for queue in 0..self.handle.queue_count() {
            let size = 1 << self.random.within(1..=6);
            self.handle.set_vring_num(queue, size)?;
            let address = QueueAddress {
                descriptor: self.own_page(),
                driver: self.own_page(),
                device: self.own_page(),
            };
            self.handle.set_vring_addr(queue, address)?;
            self.handle.enable_vring(queue).await?;
        }
        self.handle
            .set_status(status | DeviceStatus::DRIVER_OK)
            .await
    }

    /// Writes noise, now and then of the kind that descriptors and indices are made of.
    fn scribble(&mut self) {
        let offset = self.random.below(MEMORY as u64 - 16);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.any_address().to_le_bytes());
        bytes[8..12].copy_from_slice(&(self.random.below(5000) as u32).to_le_bytes());
        bytes[12..14].copy_from_slice(&(self.random.below(8) as u16).to_le_bytes());
        bytes[14..].copy_from_slice(&(self.random.below(70) as u16).to_le_bytes());
        let (from, to) = match self.random.below(3) {
            0 => (0, 16),
            1 => (12, 14),
            _ => (14, 16),
        };
        let aligned = offset / 16 * 16;
        // Inside the memory.
        let _ = self.memory.write(aligned + from as u64, &bytes[from..to]);
        // Few chains at a time, so that the device gets beyond the index of the available ring.
        let avail_index = self.random.below(MEMORY as u64 / PAGE) * PAGE + 2;
        let index = self.random.below(70) as u16;
        let _ = self.memory.write(avail_index, &index.to_le_bytes());
    }

    fn any_features(&mut self) -> Features {
        let [low, high] = [0, 64].map(|shift| u128::from(self.random.next()) << shift);
        Features::from_bits(low | high)
    }

    fn any_request(&mut self) -> Request {
        let queue = self.any_queue();
        let number = self.random.next();
        match self.random.below(24) {
            0 => Request::SetOwner,
            1 => Request::SetFeatures(self.any_features()),
            2 => Request::SetBackendFeatures(BackendFeatures::from_bits_retain(number)),
            3 => Request::SetStatus(DeviceStatus::from_bits_retain(number as u8)),
            4 => Request::GetConfig {
                offset: self.random.below(80) as u32,
                len: self.random.below(80) as u32,
            },
            5 => Request::SetConfig {
                offset: self.random.below(80) as u32,
                bytes: number.to_le_bytes().into(),
            },
            6 => Request::GetVringSize { queue },
            7 => Request::SetVringNum {
                queue,
                size: number as u16,
            },
            8 => Request::SetVringAddr {
                queue,
                address: QueueAddress {
                    descriptor: DmaAddr(self.any_address()),
                    driver: DmaAddr(self.any_address()),
                    device: DmaAddr(number),
                },
            },
            9 => Request::GetVringBase { queue },
            10 => Request::SetVringBase {
                queue,
                state: QueueState::Split {
                    avail_index: number as u16,
                },
            },
            11 => Request::EnableVring { queue },
            12 => Request::DisableVring { queue },
            13 => Request::GetVringGroup { queue },
            14 => Request::GetVringDescGroup { queue },
            15 => Request::SetGroupAsid {
                group: self.random.below(4) as u16,
                asid: self.random.below(4) as u16,
            },
            16 => Request::Suspend,
            17 => Request::Resume,
            18 => Request::GetConfig {
                offset: number as u32,
                len: 8,
            },
            19 => Request::SetVringCall { queue, event: None },
            20 => Request::SetVringErr { queue, event: None },
            21 => Request::SetVringKick { queue, event: None },
            22 => Request::GetStatus,
            _ => Request::GetVringNum,
        }
    }

    fn any_message(&mut self) -> IotlbMessage {
        let asid = self.random.below(3) as u16;
        let iova = self.any_address();
        let size = match self.random.below(4) {
            0 => self.random.next(),
            _ => self.random.below(3 * PAGE),
        };
        match self.random.below(6) {
            0 => IotlbMessage::BatchBegin { asid },
            1 => IotlbMessage::BatchEnd { asid },
            2 => IotlbMessage::Invalidate { asid, iova, size },
            _ => IotlbMessage::Update {
                asid,
                iova,
                size,
                memory: self.memory.clone(),
                offset: self.random.below(2 * MEMORY as u64),
                permission: Permission::from_bits_truncate(self.random.next() as u8),
            },
        }
    }

    /// Mostly one that exists.
    fn any_queue(&mut self) -> u16 {
        match self.random.below(10) {
            0 => self.random.next() as u16,
            _ => self.random.below(4) as u16,
        }
    }

    /// Mostly one inside or at the edge of the client's memory.
    fn any_address(&mut self) -> u64 {
        match self.random.below(10) {
            0 => self.random.next(),
            _ => self.first + self.random.below(MEMORY as u64 + PAGE),
        }
    }

    fn own_page(&mut self) -> DmaAddr {
        DmaAddr(self.first + self.random.below(MEMORY as u64 / PAGE) * PAGE)
    }
}

/// `SplitMix64`: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }
}
