//! Where a hostile driver puts its rings, and whether a ring can lie there.

use virtq::device::DeviceConfig;
use virtq::{DmaAddr, RingFeatures, RingState, Segment};

use super::input::Input;
use super::offers::{TIDY, untidy_ring};

/// A queue in any format, at any place.
pub fn config(input: &mut Input) -> DeviceConfig {
    let bits = input.byte();
    let features = RingFeatures::NONE
        .with_packed(bits & 1 != 0)
        .with_event_idx(bits & 2 != 0)
        .with_indirect(bits & 4 != 0)
        .with_in_order(bits & 8 != 0);
    let size = match input.byte() {
        size if features.packed => 1 + u16::from(size) % 32,
        size => 1 << (size % 6),
    };
    let (index, wrap) = (input.u16(), bits & 16 != 0);
    let state = if features.packed {
        RingState::Packed {
            index: index % size,
            wrap,
        }
    } else {
        RingState::Split { index }
    };
    let limits = input.byte();
    DeviceConfig {
        size,
        features,
        addresses: if bits & 32 == 0 {
            TIDY
        } else {
            untidy_ring(input)
        },
        state,
        chain_max: 1 + u16::from(limits & 15),
        in_flight_max: 1 + u16::from(limits >> 4),
    }
}

/// The length and the alignment of the descriptor, driver and device area (VIRTIO 1.2, 2.7 and
/// 2.8.10).
fn parts(config: &DeviceConfig) -> [(u64, u32, u64); 3] {
    let addresses = config.addresses;
    let (descriptor, driver, device) = (
        addresses.descriptor.0,
        addresses.driver.0,
        addresses.device.0,
    );
    let size = u32::from(config.size);
    if config.features.packed {
        [(descriptor, 16 * size, 16), (driver, 4, 4), (device, 4, 4)]
    } else {
        [
            (descriptor, 16 * size, 16),
            (driver, 6 + 2 * size, 2),
            (device, 6 + 8 * size, 4),
        ]
    }
}

/// Whether a part of the ring is misaligned or wraps.
pub fn is_impossible(config: &DeviceConfig) -> bool {
    let bad = |(addr, len, align): (u64, u32, u64)| {
        !addr.is_multiple_of(align) || addr.checked_add(u64::from(len)).is_none()
    };
    parts(config).into_iter().any(bad)
}

/// The parts of the ring that a device writes.
pub fn written_parts(config: &DeviceConfig) -> Vec<Segment> {
    let [descriptor, _, device] =
        parts(config).map(|(addr, len, _)| Segment::described(DmaAddr(addr), len));
    if config.features.packed {
        vec![descriptor, device]
    } else {
        vec![device]
    }
}
