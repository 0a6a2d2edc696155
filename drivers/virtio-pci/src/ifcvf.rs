//! `ifcvf`: the parent driver of Intel IFC VFs, whose virtio queues a SmartNIC or a storage card
//! serves in hardware.
//!
//! Such a function follows the virtio specification, also one with a transitional id, which is
//! driven in modern mode only; what it has in common with others is in [`virtio_pci`](crate).
//! Beyond that it has a live-migration block, with which queues are stopped, told and set, and the
//! pages that it writes are logged. A function without the block, or where something else lies in
//! its place, is a plain one.
//!
//! The function reaches memory through an IOMMU that others set up, so `ACCESS_PLATFORM` is a must:
//! one that does not offer it is left to the next driver, and features without it are refused. Its
//! virtio structures lie in BARs 0, 2 and 4; capabilities that lead elsewhere are not acceptable,
//! while its interrupt table may be anywhere. The driver does no DMA of its own.
//!
//! Source: Linux, `drivers/vdpa/ifcvf`; DPDK, `drivers/vdpa/ifc`; VIRTIO 1.2, 4.1.

mod ids;
mod live_migration;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pci::{PciDevice, PciId};
use vdpa::Platform;
use vdpa::bus::{Bound, Claim, Driver, ProbeError};
use vdpa::device::VdpaBus;
use vdpa::platform::BoxFuture;

use crate::binding::Binder;
use crate::demands::Demands;
use crate::parent::Parent;

use self::ids::{IDS, device_type};
use self::live_migration::LiveMigration;

pub use self::ids::{QEMU_IDS, StateLayout};

const NAME: &str = "ifcvf";
/// Where a card has its virtio structures.
const BARS: &[u8] = &[0, 2, 4];

/// The driver of Intel IFC VFs on the PCI bus.
pub struct Ifcvf {
    binder: Binder,
    ids: Vec<PciId>,
}

impl Ifcvf {
    /// A driver of the known cards that puts its devices on `bus`.
    #[must_use]
    pub fn new(platform: Arc<dyn Platform>, bus: Arc<VdpaBus>) -> Self {
        let binder = Binder {
            name: NAME,
            platform,
            bus,
        };
        let ids = Vec::from(IDS);
        Self { binder, ids }
    }

    /// Drives these functions, too. [`driver_data`](PciId::driver_data) of a row is a
    /// [`StateLayout`] or 0.
    #[must_use]
    pub fn with_ids(mut self, rows: impl IntoIterator<Item = PciId>) -> Self {
        self.ids.extend(rows);
        self
    }
}

/// Takes a function that `row` describes, and resets it.
///
/// # Errors
/// [`ProbeError`]: the function cannot be driven; its configuration space is as before.
pub async fn probe(
    function: &Arc<PciDevice>,
    platform: &Arc<dyn Platform>,
    row: &PciId,
) -> Result<Parent, ProbeError> {
    Parent::probe(function, platform, demands(function, Some(row))?).await
}

fn demands(function: &PciDevice, row: Option<&PciId>) -> Result<Demands, ProbeError> {
    Ok(Demands {
        device_type: device_type(function.identity())?,
        features: (virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM).into(),
        bars: BARS,
        states: LiveMigration::find,
        // Without a row nothing is known of a block.
        row: row.map_or(0, |row| row.driver_data),
    })
}

impl Driver<PciDevice> for Ifcvf {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ids(&self) -> &[PciId] {
        &self.ids
    }

    fn probe<'a>(
        &'a self,
        device: Claim<PciDevice>,
        id: Option<&'a PciId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        let demands = demands(&device, id);
        self.binder.bind(device, demands)
    }
}

impl fmt::Debug for Ifcvf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ifcvf").finish_non_exhaustive()
    }
}
