//! What the driver is told of a chain that comes back.

/// A chain that is given back, or in order a batch of them that ends with it.
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub(super) id: u16,
    /// How many descriptors of the ring the chain, or the batch, took.
    pub(super) descriptors: u16,
    /// How many bytes were written.
    pub(super) written: u32,
    /// Whether these are all that the device could write. Only such chains may lie before the last
    /// one of a batch, because nobody tells the driver what was written to them (VIRTIO 1.2, 2.7.9
    /// and 2.8.9).
    pub(super) is_full: bool,
}
