//! A disk that takes its time, over a medium that others can have too.

use std::sync::Arc;
use std::time::Duration;

use vdpa::Features;
use vdpa::ops::Abilities;
use vdpa::testing::{FakeParent, Request, Traits};
use vdpa_sim::RamDisk;

use crate::world::{CAPACITY, World};

const QUEUE: u16 = 0;
const OUT: u32 = 1;

/// How a disk works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// One request at a time, each at once.
    Tidy,
    /// All that it finds, from the last to the first, and slowly.
    Untidy,
}

/// A disk with these abilities, which serves its queue as long as anybody has it. One that can be
/// stopped by a reset alone has begun with several requests at any time, and answers in the wrong
/// order.
pub(crate) fn slow_disk(
    w: &World,
    medium: &Arc<RamDisk>,
    features: Features,
    abilities: Abilities,
) -> Arc<FakeParent> {
    let mut config = (CAPACITY / 512).to_le_bytes().to_vec();
    config.resize(60, 0);
    let traits = Traits {
        abilities,
        ..Traits::default()
    };
    let block = u32::from(u8::from(virtio::Id::Block));
    let parent = FakeParent::with_traits(&w.platform, block, features, &[256], &config, traits);
    let manner = if abilities.contains(Abilities::SUSPEND) {
        Manner::Tidy
    } else {
        Manner::Untidy
    };
    w.spawn(serve(
        Arc::clone(&parent),
        Arc::clone(medium),
        Arc::clone(&w.kernel),
        manner,
    ));
    parent
}

async fn serve(
    parent: Arc<FakeParent>,
    medium: Arc<RamDisk>,
    platform: Arc<dyn vdpa::Platform>,
    manner: Manner,
) {
    let kick = parent.kick(QUEUE);
    // As long as anybody else has the device.
    while Arc::strong_count(&parent) > 1 {
        platform.sleep(Duration::from_millis(1)).await;
        if !kick.take() {
            continue;
        }
        while let Some(first) = parent.pop(QUEUE) {
            if manner == Manner::Tidy {
                carry_out(&parent, &medium, &first);
            } else {
                let mut batch = vec![first];
                batch.extend(std::iter::from_fn(|| parent.pop(QUEUE)));
                carry_out_slowly(&parent, &medium, &*platform, batch).await;
            }
        }
    }
}

async fn carry_out_slowly(
    parent: &FakeParent,
    medium: &RamDisk,
    platform: &dyn vdpa::Platform,
    mut batch: Vec<Request>,
) {
    while let Some(request) = batch.pop() {
        parent.take_log();
        platform.sleep(Duration::from_micros(300)).await;
        if parent.take_log().iter().any(|entry| entry == "reset") {
            // It has forgotten what it had begun.
            return;
        }
        carry_out(parent, medium, &request);
    }
}

fn carry_out(parent: &FakeParent, medium: &RamDisk, request: &Request) {
    let bytes = parent.read(QUEUE, request);
    let Some((header, data)) = bytes.split_first_chunk::<16>() else {
        // It has been stopped meanwhile.
        return;
    };
    let kind = u32::from_le_bytes(header[..4].try_into().unwrap());
    let offset = u64::from_le_bytes(header[8..].try_into().unwrap()) * 512;
    let mut answer = Vec::new();
    if kind == OUT {
        medium.write(offset, data).unwrap();
    } else {
        let room: u32 = request.writable.iter().map(|segment| segment.len).sum();
        answer.resize(room as usize - 1, 0);
        medium.read(offset, &mut answer).unwrap();
    }
    answer.push(0);
    parent.complete(QUEUE, request, &answer);
}
