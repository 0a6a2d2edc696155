//! `vp_vdpa`: the parent driver that puts a modern virtio PCI function on the vDPA bus.
//!
//! It takes every function with a virtio id, also transitional ones, and drives it in modern mode
//! only. The device's addresses are translated by the platform. Whatever the function lacks (the
//! state of a running queue, stopping a single queue without `RING_RESET`, suspending the device
//! without `SUSPEND`) is reported as unsupported, not imitated.
//!
//! Source: VIRTIO 1.2, 3 and 4.1.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use pci::{Identity, PciDevice, PciId};
use vdpa::Platform;
use vdpa::bus::{Bound, Claim, Driver, ProbeError};
use vdpa::device::VdpaBus;
use vdpa::platform::BoxFuture;

use crate::binding::Binder;
use crate::capability::ANY_BAR;
use crate::demands::Demands;
use crate::parent::Parent;
use crate::unsuitable::Unsuitable;

const NAME: &str = "vp_vdpa";
const VIRTIO_VENDOR: u16 = 0x1af4;
/// Modern device ids count the virtio device type from here (VIRTIO 1.2, 4.1.2.1).
const MODERN_BASE: u16 = 0x1040;

/// `driver_data` of a row: where the virtio device type is.
const TYPE_IN_DEVICE_ID: u64 = 0;
/// As [`TYPE_IN_DEVICE_ID`]: a transitional function (VIRTIO 1.2, 4.1.2.3).
const TYPE_IN_SUBSYSTEM_ID: u64 = 1;

/// A virtio IOMMU (VIRTIO 1.2, 5.13.1). It has no transitional form.
pub const IOMMU: PciId = PciId {
    vendor: Some(VIRTIO_VENDOR),
    devices: MODERN_BASE + 23..=MODERN_BASE + 23,
    driver_data: TYPE_IN_DEVICE_ID,
    ..PciId::ANY
};

const IDS: &[PciId] = &[
    PciId {
        vendor: Some(VIRTIO_VENDOR),
        devices: MODERN_BASE..=0x107f,
        driver_data: TYPE_IN_DEVICE_ID,
        ..PciId::ANY
    },
    PciId {
        vendor: Some(VIRTIO_VENDOR),
        devices: 0x1000..=0x103f,
        driver_data: TYPE_IN_SUBSYSTEM_ID,
        ..PciId::ANY
    },
];

/// The driver of virtio functions on the PCI bus.
pub struct VpVdpa(Binder);

impl VpVdpa {
    /// A driver that puts its devices on `bus`.
    #[must_use]
    pub fn new(platform: Arc<dyn Platform>, bus: Arc<VdpaBus>) -> Self {
        Self(Binder {
            name: NAME,
            platform,
            bus,
        })
    }
}

/// Takes a function whose virtio device type is known, and resets it.
///
/// # Errors
/// [`ProbeError`]: the function cannot be driven; its configuration space is as before.
pub async fn probe(
    function: &Arc<PciDevice>,
    platform: &Arc<dyn Platform>,
    device_type: u32,
) -> Result<Parent, ProbeError> {
    Parent::probe(function, platform, demands(device_type)).await
}

fn demands(device_type: u32) -> Demands {
    Demands {
        device_type,
        features: virtio::F::VERSION_1.into(),
        bars: ANY_BAR,
        states: |_, _| None,
        row: 0,
    }
}

/// The virtio device type of a function. The row that has matched says where it is.
fn device_type(identity: &Identity, id: Option<&PciId>) -> Result<u32, ProbeError> {
    let device_type = match id.map(|id| id.driver_data) {
        Some(TYPE_IN_DEVICE_ID) => identity.device - MODERN_BASE,
        Some(TYPE_IN_SUBSYSTEM_ID) => identity.subdevice,
        _ => return Err(ProbeError::unsuitable(Unsuitable::NotVirtio)),
    };
    match device_type {
        0 => Err(ProbeError::unsuitable(Unsuitable::NoType)),
        known => Ok(u32::from(known)),
    }
}

impl Driver<PciDevice> for VpVdpa {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ids(&self) -> &[PciId] {
        IDS
    }

    fn probe<'a>(
        &'a self,
        device: Claim<PciDevice>,
        id: Option<&'a PciId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        let device_type = device_type(device.identity(), id);
        self.0.bind(device, device_type.map(demands))
    }
}

impl fmt::Debug for VpVdpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VpVdpa").finish_non_exhaustive()
    }
}
