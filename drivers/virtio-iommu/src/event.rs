//! The event queue: accesses that the IOMMU has refused (VIRTIO 1.2, 5.13.6.7).

use alloc::sync::Arc;

use vdpa::iotlb::Permission;
use virtio_bus::VirtQueue;
use virtq::{Broken, DmaAllocator, DmaBuffer, DmaError, Pending, Writable};

/// `virtio_iommu_fault`.
const LEN: usize = 24;
/// The most entries of the queue: how many faults there can be between two looks.
pub(crate) const SIZE_MAX: u16 = 64;

const READ: u32 = 1 << 0;
const WRITE: u32 = 1 << 1;
const EXECUTE: u32 = 1 << 2;
const ADDRESS: u32 = 1 << 8;

/// What an IOMMU tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Fault(Fault),
    /// It has written too much or too little.
    Malformed,
}

/// An access that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    pub(crate) endpoint: u32,
    /// What the endpoint wanted to do, if the IOMMU says.
    pub(crate) access: Permission,
    pub(crate) addr: Option<u64>,
}

/// Why an access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Unknown,
    /// The endpoint is in no domain.
    Domain,
    /// Nothing is mapped there, or it does not permit the access.
    Mapping,
}

impl Fault {
    fn parse(bytes: &[u8; LEN]) -> Self {
        let word = |at: usize| {
            let word = bytes[at..].first_chunk().expect("a field of the structure");
            u32::from_le_bytes(*word)
        };
        let flags = word(4);
        let mut access = Permission::empty();
        access.set(Permission::READ, flags & (READ | EXECUTE) != 0);
        access.set(Permission::WRITE, flags & WRITE != 0);
        let addr = u64::from(word(16)) | u64::from(word(20)) << 32;
        Self {
            reason: match bytes[0] {
                1 => Reason::Domain,
                2 => Reason::Mapping,
                _ => Reason::Unknown,
            },
            endpoint: word(8),
            access,
            addr: (flags & ADDRESS != 0).then_some(addr),
        }
    }
}

/// The event queue, with a buffer in each of its entries.
#[derive(Debug)]
pub(crate) struct EventQueue {
    queue: VirtQueue<Writable>,
}

impl EventQueue {
    /// Fills the queue.
    pub(crate) fn new(
        mut queue: VirtQueue<Writable>,
        dma: &Arc<dyn DmaAllocator>,
    ) -> Result<Self, DmaError> {
        let count = queue.ring.size().into();
        for buffer in DmaBuffer::pool(dma, count, LEN)? {
            queue
                .ring
                .add(Writable(buffer))
                .map_err(|_| DmaError::OutOfMemory)?;
        }
        Ok(Self { queue })
    }

    /// Shows the device the buffers that it does not have yet.
    pub(crate) fn kick(&mut self) {
        self.queue.kick();
    }

    /// The next event. Its buffer goes back to the device with the next kick.
    pub(crate) fn take(&mut self) -> Result<Option<Event>, Broken> {
        let Some(used) = self.queue.ring.take()? else {
            return Ok(None);
        };
        let Writable(mut buffer) = used.chain;
        let event = match <&[u8; LEN]>::try_from(&*buffer) {
            Ok(bytes) if used.written as usize == LEN => Event::Fault(Fault::parse(bytes)),
            _ => Event::Malformed,
        };
        buffer.fill(0);
        // There is room for what was there before; only a broken queue does not take it.
        let _ = self.queue.ring.add(Writable(buffer));
        Ok(Some(event))
    }

    /// Asks for an interrupt with the next event.
    pub(crate) fn enable_interrupts(&mut self) -> Pending {
        self.queue.ring.enable_interrupts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(reason: u8, flags: u32, endpoint: u32, addr: u64) -> [u8; LEN] {
        let mut bytes = [0xaa; LEN];
        bytes[0] = reason;
        bytes[4..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..12].copy_from_slice(&endpoint.to_le_bytes());
        bytes[16..].copy_from_slice(&addr.to_le_bytes());
        bytes
    }

    #[test]
    fn faults_are_read_as_specified() {
        let fault = Fault::parse(&bytes(2, WRITE | ADDRESS, 0x20, 0x1234_5678_9abc));
        let expected = Fault {
            reason: Reason::Mapping,
            endpoint: 0x20,
            access: Permission::WRITE,
            addr: Some(0x1234_5678_9abc),
        };
        assert_eq!(fault, expected);
        let fault = Fault::parse(&bytes(1, EXECUTE, 7, 9));
        assert_eq!((fault.reason, fault.addr), (Reason::Domain, None));
        assert_eq!(fault.access, Permission::READ);
        for reason in [0, 3, 0xff] {
            let fault = Fault::parse(&bytes(reason, 0, 7, 9));
            assert_eq!(
                (fault.reason, fault.access),
                (Reason::Unknown, Permission::empty())
            );
        }
    }
}
