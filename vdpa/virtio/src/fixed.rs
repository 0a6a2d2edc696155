//! What a driver has read once from the configuration space and keeps to, so that another device must allow
//! it, too.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use vdpa::Features;
use vdpa::ops::OpError;

use super::Transport;

/// The values that hold for a driver since its device was started.
#[derive(Clone, Debug, Default)]
pub(super) struct FixedConfig(Vec<(Field, u32)>);

/// A field of the configuration space.
#[derive(Clone, Debug)]
struct Field {
    device_type: u32,
    /// Without it there is no such field.
    feature: Features,
    range: Range<u32>,
    rule: Rule,
}

/// What another device may say instead.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// The driver lays out its requests by it.
    Same,
    /// It is a limit that the driver keeps to.
    AtLeast,
}

impl FixedConfig {
    /// Reads them from a device with which `features` have been agreed on.
    pub(super) fn read(
        transport: &Arc<dyn Transport>,
        features: Features,
    ) -> Result<Self, OpError> {
        let device_type = transport.device_type();
        fields()
            .into_iter()
            .filter(|field| field.device_type == device_type)
            .filter(|field| features.contains(field.feature))
            .map(|field| field.read(transport).map(|value| (field, value)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether the driver can go on as it does with another device.
    pub(super) fn is_allowed_by(&self, transport: &Arc<dyn Transport>) -> Result<bool, OpError> {
        for (field, old) in &self.0 {
            let new = field.read(transport)?;
            let allowed = match field.rule {
                Rule::Same => new == *old,
                Rule::AtLeast => new >= *old,
            };
            if !allowed {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// VIRTIO 1.2, 5.1.4 and 5.2.4.
fn fields() -> [Field; 4] {
    use virtio::{blk, net};
    let field = |device_type, feature, range, rule| Field {
        device_type,
        feature,
        range,
        rule,
    };
    [
        field(1, net::F::MTU.into(), 10..12, Rule::AtLeast),
        field(2, blk::F::SIZE_MAX.into(), 8..12, Rule::AtLeast),
        field(2, blk::F::SEG_MAX.into(), 12..16, Rule::AtLeast),
        field(2, blk::F::BLK_SIZE.into(), 20..24, Rule::Same),
    ]
}

impl Field {
    fn read(&self, transport: &Arc<dyn Transport>) -> Result<u32, OpError> {
        let mut bytes = [0; 4];
        let len = self.range.len().min(bytes.len());
        transport.read_config(self.range.start, &mut bytes[..len])?;
        Ok(u32::from_le_bytes(bytes))
    }
}
