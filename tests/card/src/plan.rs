//! What a card is made from, and what is wrong with it on request.

use std::collections::BTreeSet;

use virtio::FeatureBits;

use crate::product::{Kind, Product};

/// Where the notification registers of the queues are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbells {
    /// Four bytes apart.
    Close,
    /// A page apart.
    PagePerQueue,
}

impl Doorbells {
    /// The notify multiplier (VIRTIO 1.2, 4.1.4.4).
    #[must_use]
    pub fn multiplier(self) -> u32 {
        match self {
            Self::Close => 4,
            Self::PagePerQueue => 4096,
        }
    }
}

/// Who keeps the MSI-X table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsixTable {
    /// The card: its entries and their masks decide about an interrupt.
    Own,
    /// The host, which hides the card's table from the driver: every interrupt is given to it.
    Hosts,
}

/// Where the virtio structures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In BAR 0, and BAR 4 is the live-migration block.
    Bar0,
    /// In BAR 4, where QEMU's devices have them. There is no live-migration block.
    Bar4,
}

/// What becomes of requests that a block card has taken when their queue is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlkStop {
    /// The card finishes them first.
    Drains,
    /// They are dropped, and the halves of the queue's word tell how many there are.
    AtOnce,
}

/// What becomes of a write to the common configuration while the status is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleWrites {
    /// It is done.
    Kept,
    /// It resets all registers, that one included, as in Cloud Hypervisor.
    Reset,
}

/// Which vector a queue interrupts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorOf {
    /// That in its register.
    Register,
    /// That which was there when it was enabled.
    Enable,
}

/// What is wrong with the capability list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFault {
    /// Nothing.
    None,
    /// The last entry leads back to the first.
    Cycle,
    /// The last entry leads into the header.
    Misplaced,
}

/// A capability that says where a virtio structure is (VIRTIO 1.2, 4.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioCap {
    /// The type of the structure.
    pub kind: u8,
    /// How long the capability says that it is.
    pub cap_len: u8,
    /// The BAR that holds the structure.
    pub bar: u8,
    /// Where it starts there.
    pub offset: u32,
    /// How long it is.
    pub length: u32,
    /// For notifications.
    pub multiplier: u32,
}

/// What is decided about a card before it is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which card it is.
    pub product: Product,
    /// The number of queue pairs of a network card, which has a control queue besides, or of queues
    /// of a block card.
    pub queues: u16,
    /// The most entries of a queue.
    pub queue_size: u16,
    /// MSI-X entries; 0 for no MSI-X.
    pub vectors: u16,
    /// What the card offers.
    pub features: u128,
    /// Where its notification registers are.
    pub doorbells: Doorbells,
    /// Who keeps the MSI-X table.
    pub table: MsixTable,
    /// Where its capability says that the MSI-X table is, instead of the right place: the offset,
    /// and the BAR in the lowest three bits.
    pub table_at: Option<u32>,
    /// Where its virtio structures are.
    pub place: Place,
    /// The size of BAR 4 instead of the block's, 0 for none; it holds nothing then.
    pub block_bar: Option<u64>,
    /// What a block card does with unfinished requests when it stops.
    pub blk_stop: BlkStop,
    /// How many receive buffers a network card takes ahead of the frames.
    pub prefetch: u16,
    /// The address of a network card.
    pub mac: [u8; 6],
    /// The MTU of a network card.
    pub mtu: u16,
    /// What it makes of register writes while its status is 0.
    pub idle_writes: IdleWrites,
    /// Which vector of a queue counts.
    pub vector_of: VectorOf,
    /// The capabilities instead of the right ones.
    pub capabilities: Option<Vec<VirtioCap>>,
    /// What is wrong with the list that they are in.
    pub list: ListFault,
}

/// Why there is no such card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A network card needs a wire, a block card a disk.
    #[error("a network card needs a wire, and a block card a disk")]
    Function,
    /// There are at most 32 pairs or queues, and at least one.
    #[error("a card has 1 to 32 pairs of queues, or queues")]
    Queues,
    /// A queue's size is a power of two up to 32768.
    #[error("the size of a queue is a power of two up to 32768")]
    QueueSize,
    /// There are at most 256 MSI-X entries.
    #[error("a card has at most 256 vectors")]
    Vectors,
    /// The capability list does not fit the configuration space.
    #[error("the capabilities do not fit 256 bytes")]
    Capabilities,
}

impl Plan {
    /// A card as it should be: two pairs or two queues, and a vector for each queue and the
    /// configuration. A function of plain virtio has no live-migration block, and everything that
    /// virtio has for rings.
    #[must_use]
    pub fn new(product: Product) -> Self {
        let queues = 2;
        let vectors = match product.kind() {
            Kind::Net => 2 * queues + 2,
            Kind::Blk => queues + 1,
        };
        Self {
            product,
            queues,
            queue_size: 256,
            vectors,
            features: features(product),
            doorbells: Doorbells::Close,
            table: MsixTable::Own,
            table_at: None,
            place: Place::Bar0,
            block_bar: product.is_plain().then_some(0),
            blk_stop: BlkStop::Drains,
            prefetch: 16,
            mac: [0x02, 0x1f, 0xc0, 0, 0, 1],
            mtu: 1500,
            idle_writes: IdleWrites::Kept,
            vector_of: VectorOf::Register,
            capabilities: None,
            list: ListFault::None,
        }
    }

    /// How many queues there are, a network card's control queue included.
    #[must_use]
    pub fn queue_count(&self) -> u16 {
        match self.product.kind() {
            Kind::Net => 2 * self.queues + 1,
            Kind::Blk => self.queues,
        }
    }

    pub(crate) fn check(&self) -> Result<(), PlanError> {
        if !(1..=32).contains(&self.queues) {
            return Err(PlanError::Queues);
        }
        if !self.queue_size.is_power_of_two() {
            return Err(PlanError::QueueSize);
        }
        if self.vectors > 256 {
            return Err(PlanError::Vectors);
        }
        Ok(())
    }
}

/// What cards of this kind offer.
fn features(product: Product) -> u128 {
    let plain = virtio::F::RING_RESET | virtio::F::RING_PACKED | virtio::F::IN_ORDER;
    let plain = if product.is_plain() { bits(plain) } else { 0 };
    let ring = virtio::F::INDIRECT_DESC | virtio::F::EVENT_IDX;
    let common = bits(ring | virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM);
    common
        | plain
        | match product.kind() {
            Kind::Net => {
                use virtio::net::F;
                let control = F::CTRL_VQ | F::CTRL_RX | F::CTRL_MAC_ADDR | F::MQ;
                bits(F::MAC | F::STATUS | F::MTU | control)
            }
            Kind::Blk => {
                use virtio::blk::F;
                let zeroes = F::DISCARD | F::WRITE_ZEROES;
                bits(F::SEG_MAX | F::BLK_SIZE | F::FLUSH | F::MQ | zeroes)
            }
        }
}

/// Feature bits as the registers have them.
pub(crate) fn bits<F: FeatureBits + Copy>(features: F) -> u128 {
    features.bits().to_ne()
}

/// How long something takes that the driver looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delay {
    /// It is done at once.
    #[default]
    AtOnce,
    /// It is done after so many looks.
    After(u32),
    /// It never is.
    Never,
}

/// Which vectors the card does not take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Refused {
    /// It takes all that it has.
    #[default]
    Nothing,
    /// Not these.
    Vectors(BTreeSet<u16>),
    /// None.
    Everything,
}

/// How the configuration changes while it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// It does not.
    #[default]
    Stable,
    /// It changes with each of the next so many reads.
    Changes(u32),
}

/// How the card behaves; it can be changed while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How it takes a reset.
    pub reset: Delay,
    /// How it takes the stop of a queue.
    pub stop: Delay,
    /// How it takes the reset of a queue.
    pub queue_reset: Delay,
    /// The vectors that it does not take.
    pub refused: Refused,
    /// Whether its configuration stands still.
    pub generation: Generation,
    /// What the live-migration block says of every queue that stops.
    pub ring_words: Option<u32>,
    /// After so many register accesses from now on the card is gone.
    pub gone_after: Option<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            reset: Delay::AtOnce,
            stop: Delay::After(2),
            queue_reset: Delay::After(2),
            refused: Refused::Nothing,
            generation: Generation::Stable,
            ring_words: None,
            gone_after: None,
        }
    }
}
