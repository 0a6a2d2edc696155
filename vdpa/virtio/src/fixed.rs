//! What a driver has read once from the configuration space and keeps to, so that another device
//! must allow it, too.

use alloc::sync::Arc;
use alloc::vec::Vec;

use vdpa::Features;
use vdpa::config::{FieldLayout, blk, net};
use vdpa::ops::OpError;

use super::Transport;

/// The values that hold for a driver since its device was started.
#[derive(Clone, Debug, Default)]
pub(super) struct FixedConfig(Vec<(Field, u32)>);

/// A field of the configuration space.
#[derive(Clone, Debug)]
struct Field {
    device_type: u32,
    layout: FieldLayout,
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
        let device_type = transport.info().device_type;
        fields()
            .into_iter()
            .filter(|field| field.device_type == device_type)
            .filter(|field| field.layout.exists(features))
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

fn fields() -> [Field; 4] {
    let field = |device_type, layout, rule| Field {
        device_type,
        layout,
        rule,
    };
    [
        field(1, net::MTU.layout(), Rule::AtLeast),
        field(2, blk::SIZE_MAX.layout(), Rule::AtLeast),
        field(2, blk::SEG_MAX.layout(), Rule::AtLeast),
        field(2, blk::BLK_SIZE.layout(), Rule::Same),
    ]
}

impl Field {
    fn read(&self, transport: &Arc<dyn Transport>) -> Result<u32, OpError> {
        let mut bytes = [0; 4];
        let len = self.layout.len().min(bytes.len());
        transport.read_config(self.layout.offset, &mut bytes[..len])?;
        Ok(u32::from_le_bytes(bytes))
    }
}
