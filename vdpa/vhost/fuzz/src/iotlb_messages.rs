//! Nothing but messages about memory, in any order: mappings, batches, address spaces.

use vdpa::device::Removal;
use vdpa_sim::Flavour;
use vhost_vdpa::{BackendFeatures, IotlbMessage, OpenOptions};

use super::input::Input;
use super::requests;
use super::rings::LEN;
use super::world::{Kind, World};

/// Little more than the client has, and few mappings: both run out.
const OPTIONS: OpenOptions = OpenOptions {
    version: vhost_vdpa::VERSION,
    quota: LEN + LEN / 4,
    mappings: 6,
    trust: vdpa::dma::Trust::Isolated,
};

/// Sends messages, and at the end takes all mappings away.
///
/// # Panics
/// If all of the memory cannot be mapped then, or something is left.
pub fn iotlb_messages(data: &[u8]) {
    let mut input = Input::new(data);
    let world = World::new();
    let (kind, flavour) = match input.below(4) {
        0 => (Kind::Net, Flavour::Whole),
        1 => (Kind::Net, Flavour::Incremental),
        2 => (Kind::Blk, Flavour::Whole),
        _ => (Kind::Blk, Flavour::Incremental),
    };
    let device = world.add(kind, flavour);
    let handle = world.open(&device, OPTIONS).expect("it is free");
    let memory = world.memory(LEN as usize);
    handle.set_owner().expect("the first owner");
    let features = match input.below(4) {
        0 => BackendFeatures::empty(),
        1 => BackendFeatures::IOTLB_BATCH,
        _ => BackendFeatures::IOTLB_BATCH | BackendFeatures::IOTLB_ASID,
    };
    let _ = handle.set_backend_features(features);
    while !input.is_empty() {
        let _ = handle.message(requests::message(&mut input, &memory));
        if input.below(8) == 0 {
            let space = input.below(3) as u16;
            let _ = world.platform.block_on(handle.settle(space));
        }
    }
    let take_away = |asid| {
        let _ = handle.message(IotlbMessage::BatchEnd { asid });
        let _ = handle.message(IotlbMessage::Invalidate {
            asid,
            iova: 0,
            size: u64::MAX,
        });
        let _ = world.platform.block_on(handle.settle(asid));
    };
    // A batch concerns its own address space, which may be any of these.
    (0..4).chain(0..4).for_each(take_away);
    let mapped = handle.message(requests::whole(&memory));
    assert_eq!(mapped, Ok(()), "what is taken away counts no more");
    let closed = world.platform.block_on(handle.close());
    assert_eq!(closed, Ok(()), "a simulator resets");
    world.remove(&device, Removal::Orderly);
    drop((memory, device));
    world.settle();
    assert!(world.platform.tasks().is_empty(), "a task is left");
    assert_eq!(world.platform.heap().outstanding(), 0, "memory is left");
}
