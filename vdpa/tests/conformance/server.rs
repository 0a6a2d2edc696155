//! The task that plays the insides of a fake device.

use std::sync::Arc;
use std::time::Duration;

use vdpa::Platform;
use vdpa::testing::{FakeParent, FakePlatform, Request};

/// How often it looks at its queues.
const LOOK: Duration = Duration::from_micros(100);
const SECTOR_LEN: usize = 512;
pub const SECTORS: usize = 64;

/// Gives back every frame: what comes in queue 1 goes out in queue 0.
pub fn spawn_loopback(platform: &Arc<FakePlatform>, parent: &Arc<FakeParent>) {
    spawn(platform, parent, |parent| {
        while let Some(sent) = parent.pop(1) {
            let mut frame = parent.read(1, &sent);
            parent.complete(1, &sent, &[]);
            if let Some(room) = parent.pop(0) {
                // VIRTIO 1.2, 5.1.6: one buffer holds it.
                frame[10] = 1;
                parent.complete(0, &room, &frame);
            }
        }
    });
}

/// A disk in memory.
pub fn spawn_disk(platform: &Arc<FakePlatform>, parent: &Arc<FakeParent>) {
    let mut data = vec![0; SECTORS * SECTOR_LEN];
    spawn(platform, parent, move |parent| {
        while let Some(request) = parent.pop(0) {
            let (header, payload) = read(parent, &request);
            let answer = serve(&mut data, header, &payload, room(&request));
            parent.complete(0, &request, &answer);
        }
    });
}

/// Serves the queues until the operations are freed.
fn spawn(
    platform: &Arc<FakePlatform>,
    parent: &Arc<FakeParent>,
    mut serve: impl FnMut(&FakeParent) + Send + 'static,
) {
    let (clock, parent) = (Arc::clone(platform), Arc::clone(parent));
    let task = async move {
        while parent.frees() == 0 {
            serve(&parent);
            clock.sleep(LOOK).await;
        }
    };
    platform.spawn("server", Box::pin(task));
}

/// The type and the sector of a request, and its data.
fn read(parent: &FakeParent, request: &Request) -> ((u32, u64), Vec<u8>) {
    let mut bytes = parent.read(0, request);
    let data = bytes.split_off(16);
    let kind = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let sector = u64::from_le_bytes(bytes[8..].try_into().unwrap());
    ((kind, sector), data)
}

fn room(request: &Request) -> usize {
    request.writable.iter().map(|part| part.len as usize).sum()
}

/// VIRTIO 1.2, 5.2.6: the answer ends with the status.
fn serve(data: &mut [u8], (kind, sector): (u32, u64), payload: &[u8], room: usize) -> Vec<u8> {
    let mut answer = vec![0; room];
    let len = if kind == 1 { payload.len() } else { room - 1 };
    let range = usize::try_from(sector)
        .ok()
        .and_then(|sector| sector.checked_mul(SECTOR_LEN))
        .and_then(|start| Some(start..start.checked_add(len)?))
        .filter(|range| range.end <= data.len());
    answer[room - 1] = match (kind, range) {
        (0, Some(range)) => {
            answer[..len].copy_from_slice(&data[range]);
            0
        }
        (1, Some(range)) => {
            data[range].copy_from_slice(payload);
            0
        }
        (0 | 1, None) => 1,
        (4 | 8, _) => 0,
        _ => 2,
    };
    answer
}
