//! Which addresses the machine sends to PCI and nothing uses, for registers that firmware left
//! without one.
//!
//! Firmware describes them in a language that takes an interpreter. The rules here hold on the
//! machines of QEMU and on ordinary PCs: the last GiB below 4 GiB is for devices, up to where the
//! interrupt controllers are, and so is everything above the last memory.

use core::iter;
use core::ops::Range;

use crate::pure::memory::regions::free_regions;

const GIB: u64 = 1 << 30;
/// Where the interrupt controllers begin.
const INTERRUPT_CONTROLLERS: u64 = 0xfec0_0000;
/// The first address that cannot be mapped, in the lower half of the virtual address space.
const VIRTUAL_END: u64 = 1 << 47;

/// The I/O ports that no legacy device of a PC uses.
pub(crate) const PORTS: Range<u64> = 0xc000..0x1_0000;

/// The largest free range in the last GiB below 4 GiB. `memory` is what the memory map names,
/// `config_space` where PCI configuration space is. Empty, if there is none.
pub(crate) fn window_below_4_gib(
    memory: &[Range<u64>],
    config_space: impl Iterator<Item = Range<u64>> + Clone,
) -> Range<u64> {
    let for_devices = 3 * GIB..INTERRUPT_CONTROLLERS;
    let taken = memory.iter().cloned().chain(config_space);
    let free = free_regions(iter::once(for_devices), &taken);
    free.into_iter()
        .max_by_key(|range| range.end - range.start)
        .unwrap_or(0..0)
}

/// The addresses above all memory, as far as the processor has bits for them.
pub(crate) fn window_above(memory: &[Range<u64>], address_mask: u64) -> Option<Range<u64>> {
    let last = memory
        .iter()
        .map(|range| range.end)
        .filter(|end| *end <= address_mask)
        .max();
    let start = last.unwrap_or(0).max(4 * GIB).next_multiple_of(GIB);
    let end = reach(address_mask);
    (start < end).then_some(start..end)
}

/// The first address that cannot be reached: the processor has no bits for it, or the page tables
/// have no place.
pub(crate) fn reach(address_mask: u64) -> u64 {
    address_mask.saturating_add(1).min(VIRTUAL_END)
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]
mod tests {
    use super::*;

    #[test]
    fn on_q35_devices_are_above_config_space() {
        let memory = [
            0..0x0800_0000,
            0xb000_0000..0xc000_0000,
            0xfffc_0000..0x1_0000_0000,
        ];
        let config_space = [0xb000_0000..0xc000_0000];
        let window = window_below_4_gib(&memory, config_space.into_iter());
        assert_eq!(window, 0xc000_0000..0xfec0_0000);
    }

    #[test]
    fn on_microvm_devices_are_below_config_space() {
        let config_space = [0xe000_0000..0xf000_0000];
        let window = window_below_4_gib(&[0..0xc000_0000], config_space.into_iter());
        assert_eq!(window, 0xc000_0000..0xe000_0000);
    }

    #[test]
    fn memory_above_3_gib_is_left_out() {
        let window = window_below_4_gib(&[0..0xe000_0000], iter::empty());
        assert_eq!(window, 0xe000_0000..0xfec0_0000);
        assert!(window_below_4_gib(&[0..4 * GIB], iter::empty()).is_empty());
    }

    #[test]
    fn the_upper_window_begins_above_all_memory() {
        let mask = (1 << 40) - 1;
        assert_eq!(window_above(&[0..GIB], mask), Some(4 * GIB..1 << 40));
        assert_eq!(
            window_above(&[0..GIB, 4 * GIB..10 * GIB + 1], mask),
            Some(11 * GIB..1 << 40)
        );
        assert_eq!(
            window_above(&[], u64::MAX >> 12),
            Some(4 * GIB..VIRTUAL_END)
        );
        assert_eq!(window_above(&[0..GIB], (1 << 32) - 1), None);
    }
}
