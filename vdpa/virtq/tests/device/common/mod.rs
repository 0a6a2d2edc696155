//! What the tests of the device side share: memory of a driver, and drivers written from the
//! specification, which know nothing of the crate's own driver side.

mod driver;
mod packed_driver;
mod split_driver;
mod world;

pub use driver::{Buffer, Driver, Offer};
pub use packed_driver::PackedDriver;
pub use split_driver::SplitDriver;
pub use world::{LEN, PAGE, Permission, SharedMemory, World};

use virtq::device::{Broken, Chain, DeviceConfig, DeviceQueue, DirtyLog, PopError};
use virtq::{RingFeatures, RingState};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const SPLIT: RingFeatures = RingFeatures::NONE;
pub const PACKED: RingFeatures = SPLIT.with_packed(true);

/// How the tests make a device side for a driver.
pub fn config(driver: &Driver) -> DeviceConfig {
    DeviceConfig {
        size: driver.size(),
        features: driver.features(),
        addresses: driver.addresses(),
        state: RingState::start(driver.features()),
        chain_max: driver.size(),
        in_flight_max: driver.size(),
    }
}

pub fn device(driver: &Driver, world: &World) -> DeviceQueue<SharedMemory> {
    DeviceQueue::new(&config(driver), world.memory()).unwrap()
}

/// Everything that the driver has put into a chain.
pub fn pull_all<L: DirtyLog>(queue: &DeviceQueue<SharedMemory, L>, chain: &Chain) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(chain.readable_len()).unwrap()];
    assert_eq!(queue.pull(chain, 0, &mut bytes), Ok(bytes.len()));
    bytes
}

/// Takes a chain that must be there.
pub fn pop<L: DirtyLog>(queue: &mut DeviceQueue<SharedMemory, L>) -> Chain {
    queue.pop().unwrap().unwrap()
}

/// The way in which the next pop breaks the queue, for good.
pub fn breaks(queue: &mut DeviceQueue<SharedMemory>) -> Broken {
    let Err(PopError::Broken(broken)) = queue.pop() else {
        panic!("the queue does not break");
    };
    assert_eq!(queue.broken(), Some(broken));
    assert_eq!(
        queue.pop().unwrap_err(),
        PopError::Broken(broken),
        "it stays broken"
    );
    broken
}
