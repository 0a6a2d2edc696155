//! From a host bridge to devices on the PCI bus.

use alloc::sync::Arc;
use core::fmt;

use vdpa::{Node, Platform};

use super::access::ConfigAccess;
use super::assign::Windows;
use super::device::PciBus;
use super::id::PciId;
use super::scan::Roots;
use super::segment::Segment;

/// One PCI segment below its host bridge.
pub struct PciRoot {
    segment: Segment,
    roots: Roots,
}

impl PciRoot {
    /// The segment that `access` reaches. Registers without an address get one from `windows`.
    #[must_use]
    pub fn new(
        access: Arc<dyn ConfigAccess>,
        platform: Arc<dyn Platform>,
        windows: Windows,
    ) -> Self {
        Self {
            segment: Segment::new(access, platform, windows),
            roots: Roots::First,
        }
    }

    /// The segment may have root buses beside the first, to which no bridge leads. Each bus number
    /// that no bridge claims is asked for them, which takes 32 reads.
    #[must_use]
    pub fn with_other_roots(mut self) -> Self {
        self.roots = Roots::Any;
        self
    }

    /// Functions that one of `ids` describes are put on the bus before all others: an IOMMU that is
    /// a function itself is there before the devices that it translates for.
    #[must_use]
    pub fn with_first(mut self, ids: &'static [PciId]) -> Self {
        self.segment.first = ids;
        self
    }

    /// Finds every function, gives addresses to registers that have none, and puts the functions
    /// on the bus, where drivers may claim them at once. Returns how many there are.
    ///
    /// A function's node hangs below that of its bridge, or below `root`. The segment lives on as
    /// long as one of its functions, so that more can be found later.
    pub async fn enumerate(self, bus: &Arc<PciBus>, root: &Arc<Node>) -> usize {
        let segment = Arc::new(self.segment);
        segment.enumerate(bus, root, self.roots).await
    }
}

impl fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segment = self.segment.access().segment();
        f.debug_struct("PciRoot")
            .field("segment", &segment)
            .finish_non_exhaustive()
    }
}
