//! How a driver reads and writes the device-specific configuration: in the width of each field,
//! only where the feature that brings the field is offered, and several parts only between two
//! looks at the generation.
//!
//! Source: VIRTIO 1.2, 2.5.1, 3.1.1, 4.1.3.1, 5.1.4 and 5.2.4.

use crate::common::{ACKNOWLEDGE, Context, DRIVER, FEATURES_OK};
use crate::plan::Plan;
use crate::product::Kind;
use crate::violations::Violations;

/// Fields of one width in a row: the offset, the width, how many, and the features of which one
/// brings them.
type Field = (u64, u64, u64, u64);

const NET: &[Field] = &[
    (0, 1, 6, 1 << 5),
    (6, 2, 1, 1 << 16),
    (8, 2, 1, 1 << 22 | 1 << 60),
    (10, 2, 1, 1 << 3),
    (12, 4, 1, 1 << 63),
    (16, 1, 1, 1 << 63),
];

const BLK: &[Field] = &[
    (0, 4, 2, u64::MAX),
    (8, 4, 1, 1 << 1),
    (12, 4, 1, 1 << 2),
    (16, 2, 1, 1 << 4),
    (18, 1, 2, 1 << 4),
    (20, 4, 1, 1 << 6),
    (24, 1, 2, 1 << 10),
    (26, 2, 1, 1 << 10),
    (28, 4, 1, 1 << 10),
    (32, 1, 1, 1 << 11),
    (34, 2, 1, 1 << 12),
    (36, 4, 3, 1 << 13),
    (48, 4, 2, 1 << 14),
    (56, 1, 1, 1 << 14),
];

/// A reading that is under way.
#[derive(Debug, Default)]
pub(crate) struct ConfigAccess {
    /// The generation was the last register that was read.
    open: bool,
    /// The configuration was read since.
    has_read: bool,
}

impl ConfigAccess {
    /// A register of the common configuration is accessed.
    pub(crate) fn other(&mut self, offset: u64, cx: &mut Context<'_>) {
        let is_generation = offset == 0x15;
        if self.open && self.has_read && !is_generation {
            let fault = "the generation was not read after the configuration";
            cx.violations.against("2.5.1", fault);
        }
        *self = Self {
            open: is_generation,
            has_read: false,
        };
    }

    pub(crate) fn read(
        &mut self,
        offset: u64,
        width: usize,
        plan: &Plan,
        status: u8,
        violations: &mut Violations,
    ) {
        if status & (ACKNOWLEDGE | DRIVER) != ACKNOWLEDGE | DRIVER {
            let fault = format_args!("configuration {offset:#x} read before DRIVER");
            violations.against("3.1.1", fault);
        }
        let parts = check_field(offset, width, plan, violations);
        if parts > 1 && !self.open {
            let fault = format_args!("configuration {offset:#x} read before the generation");
            violations.against("2.5.1", fault);
        }
        self.has_read = true;
    }

    pub(crate) fn write(
        &mut self,
        offset: u64,
        width: usize,
        plan: &Plan,
        status: u8,
        violations: &mut Violations,
    ) {
        if status & FEATURES_OK == 0 {
            let fault = format_args!("configuration {offset:#x} written before FEATURES_OK");
            violations.against("3.1.1", fault);
        }
        check_field(offset, width, plan, violations);
    }
}

/// Returns how many parts the field has.
fn check_field(offset: u64, width: usize, plan: &Plan, violations: &mut Violations) -> u64 {
    let fields = match plan.product.kind() {
        Kind::Net => NET,
        Kind::Blk => BLK,
    };
    let holds =
        |(start, width, count, _): &&Field| (*start..start + width * count).contains(&offset);
    let Some((start, natural, count, features)) = fields.iter().find(holds) else {
        return 1;
    };
    if *features != u64::MAX && plan.features & u128::from(*features) == 0 {
        let fault = format_args!("configuration {offset:#x} without its feature");
        violations.against("2.5.1", fault);
    }
    if width as u64 != *natural || !(offset - start).is_multiple_of(*natural) {
        let fault = format_args!("{width} bytes of configuration {offset:#x}");
        violations.against("4.1.3.1", fault);
    }
    *count
}
