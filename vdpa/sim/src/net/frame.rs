//! A frame on its way through a card: the header before it (VIRTIO 1.2, 5.1.6) and its bytes.

use alloc::boxed::Box;
use alloc::vec;

use vdpa::Features;
use virtio::net::{F, HdrF, HdrGso};
use virtq::device::Chain;

use crate::sim_queue::SimQueue;

use super::checksum::Unfinished;

/// The length of `virtio_net_hdr` with `VIRTIO_F_VERSION_1`.
pub(super) const HEADER_LEN: usize = 12;
/// Where the header says in how many buffers a received frame lies.
pub(super) const NUM_BUFFERS: usize = 10;
/// Addresses and type.
const ETHERNET_LEN: usize = 14;
/// Room for a VLAN tag beyond the MTU.
const VLAN_LEN: usize = 4;

/// A place for one frame.
#[derive(Debug)]
pub(super) struct Frame {
    /// Header and frame.
    bytes: Box<[u8]>,
    /// How much of it is in use.
    len: usize,
    unfinished: Option<Unfinished>,
    /// The queue pair that it was sent through.
    pub(super) pair: usize,
}

/// The driver sends something that is no frame, or that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoFrame;

impl Frame {
    /// A place for frames of this MTU.
    pub(super) fn new(mtu: u16) -> Self {
        let room = HEADER_LEN + ETHERNET_LEN + VLAN_LEN + usize::from(mtu);
        Self {
            bytes: vec![0; room].into(),
            len: 0,
            unfinished: None,
            pair: 0,
        }
    }

    /// Reads what a driver sends.
    #[inline(always)]
    pub(super) fn fill(
        &mut self,
        port: &mut SimQueue,
        chain: &Chain,
        features: Features,
    ) -> Result<(), NoFrame> {
        let len = usize::try_from(chain.readable_len()).map_err(|_| NoFrame)?;
        if !(HEADER_LEN + ETHERNET_LEN..=self.bytes.len()).contains(&len) {
            return Err(NoFrame);
        }
        if port.read(chain, 0, &mut self.bytes[..len]) != Ok(len) {
            return Err(NoFrame);
        }
        self.len = len;
        self.unfinished = self.unfinished(features)?;
        Ok(())
    }

    /// The bytes of the frame itself.
    pub(super) fn payload_len(&self) -> u64 {
        (self.len - HEADER_LEN) as u64
    }

    /// To whom it is sent.
    #[inline]
    pub(super) fn destination(&self) -> [u8; 6] {
        let address = self.bytes[HEADER_LEN..].first_chunk();
        *address.expect("a place is longer than a header")
    }

    /// Header and frame for a driver that has negotiated `features`.
    #[inline]
    pub(super) fn for_receiver(&mut self, features: Features) -> &mut [u8] {
        let (header, frame) = self.bytes[..self.len].split_at_mut(HEADER_LEN);
        let partial = match self.unfinished {
            Some(unfinished) if !features.contains(F::GUEST_CSUM) => {
                unfinished.finish(frame);
                None
            }
            unfinished => unfinished,
        };
        header.fill(0);
        if let Some(Unfinished { start, offset }) = partial {
            header[0] = HdrF::NEEDS_CSUM.bits();
            header[6..8].copy_from_slice(&start.to_le_bytes());
            header[8..10].copy_from_slice(&offset.to_le_bytes());
        }
        // One buffer, until it turns out that there are more.
        header[NUM_BUFFERS] = 1;
        &mut self.bytes[..self.len]
    }

    /// What the driver leaves to the card; it may leave only what was negotiated.
    fn unfinished(&self, features: Features) -> Result<Option<Unfinished>, NoFrame> {
        let header = &self.bytes[..HEADER_LEN];
        if header[1] != u8::from(HdrGso::None) {
            return Err(NoFrame);
        }
        if header[0] & HdrF::NEEDS_CSUM.bits() == 0 {
            return Ok(None);
        }
        let unfinished = Unfinished {
            start: u16::from_le_bytes([header[6], header[7]]),
            offset: u16::from_le_bytes([header[8], header[9]]),
        };
        let inside = unfinished.place(self.len - HEADER_LEN).is_some();
        if features.contains(F::CSUM) && inside {
            Ok(Some(unfinished))
        } else {
            Err(NoFrame)
        }
    }
}
