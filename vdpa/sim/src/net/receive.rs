//! A frame comes in: into the buffers that the driver has offered (VIRTIO 1.2, 5.1.6.3 and
//! 5.1.6.4).

use alloc::vec::Vec;

use vdpa::Features;
use virtio::net::F;
use virtq::device::Chain;

use crate::sim_queue::SimQueue;

use super::counters::Received;
use super::frame::{Frame, NUM_BUFFERS};

/// The most buffers that a frame may take.
pub(super) const MERGE_MAX: u16 = 16;

/// What has become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It has been received, or lost and counted.
    Done,
    /// There are not enough buffers now. None has been used, and the driver has been asked to
    /// notify of more.
    NoBuffer,
}

/// Puts a frame into the driver's buffers. `merged` is scratch for as many as a frame may take.
#[inline]
pub(super) fn deliver(
    frame: &mut Frame,
    port: &mut SimQueue,
    features: Features,
    merged: &mut Vec<Chain>,
    counters: &mut Received,
) -> Delivery {
    let Some(chain) = port.take() else {
        return Delivery::NoBuffer;
    };
    let payload = frame.payload_len();
    let bytes = frame.for_receiver(features);
    if chain.writable_len() >= bytes.len() as u64 {
        let whole = port.write(&chain, 0, bytes) == Ok(bytes.len());
        if whole {
            counters.packets += 1;
            counters.bytes += payload;
        } else {
            counters.errors += 1;
        }
        port.complete(chain, if whole { length(bytes) } else { 0 });
        return Delivery::Done;
    }
    if chain.writable_len() == 0 || !features.contains(F::MRG_RXBUF) {
        // VIRTIO 1.2, 5.1.6.3.1: the driver must offer buffers for whole frames.
        counters.errors += 1;
        port.complete(chain, 0);
        return Delivery::Done;
    }
    merged.push(chain);
    match gather(port, bytes.len() as u64, merged) {
        Gathered::Enough => {
            let buffers = u16::try_from(merged.len()).expect("no more than 16");
            bytes[NUM_BUFFERS..NUM_BUFFERS + 2].copy_from_slice(&buffers.to_le_bytes());
            if scatter(port, bytes, merged) {
                counters.packets += 1;
                counters.bytes += payload;
            } else {
                counters.errors += 1;
            }
            Delivery::Done
        }
        Gathered::TooSmall => {
            counters.errors += 1;
            for chain in merged.drain(..) {
                port.complete(chain, 0);
            }
            Delivery::Done
        }
        Gathered::TooFew => {
            while let Some(chain) = merged.pop() {
                port.put_back(chain);
            }
            Delivery::NoBuffer
        }
    }
}

enum Gathered {
    Enough,
    /// There are no more now.
    TooFew,
    /// A frame may not take more of them.
    TooSmall,
}

/// Takes buffers until they have room for `len` bytes.
fn gather(port: &mut SimQueue, len: u64, merged: &mut Vec<Chain>) -> Gathered {
    let mut room: u64 = merged.iter().map(Chain::writable_len).sum();
    while room < len {
        if merged.len() == usize::from(MERGE_MAX) {
            return Gathered::TooSmall;
        }
        let Some(chain) = port.take() else {
            return Gathered::TooFew;
        };
        room += chain.writable_len();
        merged.push(chain);
    }
    Gathered::Enough
}

/// Writes the bytes into the buffers one after the other, and gives them back. Whether all could be
/// reached; if not, no buffer holds a part that the driver could take for a frame.
fn scatter(port: &mut SimQueue, bytes: &[u8], merged: &mut Vec<Chain>) -> bool {
    let mut rest = bytes;
    let mut whole = true;
    for chain in merged.iter() {
        let len =
            usize::try_from(chain.writable_len()).map_or(rest.len(), |room| room.min(rest.len()));
        let (part, behind) = rest.split_at(len);
        whole &= port.write(chain, 0, part) == Ok(part.len());
        rest = behind;
    }
    let mut left = bytes.len() as u64;
    for chain in merged.drain(..) {
        let part = left.min(chain.writable_len());
        left -= part;
        let part = u32::try_from(part).expect("part of a frame");
        port.complete(chain, if whole { part } else { 0 });
    }
    whole
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a frame is short")
}
