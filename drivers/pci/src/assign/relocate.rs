//! The memory behind a bridge, laid out anew: sizes from the inside out, then places from the
//! outside in.

use alloc::vec::Vec;
use core::ops::Range;

use pci_types::HeaderType;

use super::{FOUR_GIB, Layout, Space};
use crate::bridge::{self, WINDOW};

/// A base address register: its function and its index.
type Register = (usize, usize);

impl Layout<'_> {
    /// Lays the memory behind a bridge out anew where something still has no place.
    pub(super) fn relocate(&mut self) {
        for top in 0..self.functions.len() {
            let outermost = match self.port {
                Some(port) => top == port,
                None => self.functions[top].bridge.is_none(),
            };
            let is_top = outermost && self.functions[top].kind == HeaderType::PciPciBridge;
            let lacking = self
                .missing()
                .any(|(at, _, bar)| bar.is_memory() && self.is_behind(at, top));
            if is_top && lacking {
                self.relocate_behind(top);
            }
        }
    }

    fn relocate_behind(&mut self, top: usize) {
        let above = self.functions[top].bridge;
        for window in self.open_windows(top, Space::Memory) {
            self.taken
                .retain(|taken| taken.bridge != above || taken.range != window);
        }
        let behind: Vec<usize> = (0..self.functions.len())
            .filter(|&at| self.is_behind(at, top))
            .collect();
        self.taken.retain(|taken| {
            let inside = taken
                .bridge
                .is_some_and(|at| at == top || behind.contains(&at));
            !inside || taken.space != Space::Memory
        });
        for &at in &behind {
            if self.functions[at].kind == HeaderType::PciPciBridge {
                bridge::set_memory_window(&self.functions[at].config, None);
            }
            for index in 0..self.functions[at].bars.len() {
                if matches!(self.functions[at].bars[index], Ok(Some(bar)) if bar.is_memory()) {
                    self.set_address(at, index, None);
                }
            }
        }
        let mut left_off = Vec::new();
        let place = loop {
            if let Some(place) = self.place_for(top, &left_off) {
                break Some(place);
            }
            // One register that fits nowhere must not cost the others theirs.
            match self.largest(&behind, &left_off) {
                Some(largest) => left_off.push(largest),
                None => break None,
            }
        };
        match place {
            Some(range) => {
                self.take(above, Space::Memory, range.clone());
                self.place(top, range, &left_off);
            }
            None => {
                bridge::set_memory_window(&self.functions[top].config, None);
            }
        }
    }

    /// A free window for what is behind a bridge, but for the registers that are left off.
    fn place_for(&self, bridge: usize, left_off: &[Register]) -> Option<Range<u64>> {
        let above = self.functions[bridge].bridge;
        let (size, align) = self.measure(bridge, left_off)?;
        self.spaces(above, Space::Memory)
            .into_iter()
            .find_map(|space| {
                let low = space.start..space.end.min(FOUR_GIB);
                let base = self.find(above, Space::Memory, &low, size, align)?;
                Some(base..base + size)
            })
    }

    /// The largest memory register of these functions that is not left off; of equals the last.
    fn largest(&self, functions: &[usize], left_off: &[Register]) -> Option<Register> {
        let registers = functions.iter().flat_map(|&at| {
            let bars = (0..).zip(&self.functions[at].bars);
            bars.filter_map(move |(index, bar)| match bar {
                Ok(Some(bar)) if bar.is_memory() => Some((bar.size, (at, index))),
                _ => None,
            })
        });
        registers
            .filter(|(_, register)| !left_off.contains(register))
            .max()
            .map(|(_, register)| register)
    }

    /// Gives what is behind a bridge its place in `window`.
    fn place(&mut self, bridge: usize, window: Range<u64>, left_off: &[Register]) {
        let items = self.items(bridge, left_off).unwrap_or_default();
        let mut cursor = window.start;
        for item in &items {
            let start = cursor.next_multiple_of(item.align());
            cursor = start + item.size();
            match *item {
                Item::Bar {
                    function, index, ..
                } => {
                    self.set_address(function, index, Some(start));
                }
                Item::Window { bridge, size, .. } => {
                    self.place(bridge, start..start + size, left_off);
                }
            }
        }
        bridge::set_memory_window(&self.functions[bridge].config, Some(&window));
    }

    /// The size and alignment of the window that a bridge needs; `None` if it cannot be.
    fn measure(&self, bridge: usize, left_off: &[Register]) -> Option<(u64, u64)> {
        let items = self.items(bridge, left_off)?;
        let align = items.iter().map(Item::align).max().unwrap_or(0).max(WINDOW);
        let end = items.iter().try_fold(0_u64, |end, item| {
            end.checked_next_multiple_of(item.align())?
                .checked_add(item.size())
        })?;
        let size = end.max(1).checked_next_multiple_of(WINDOW)?;
        Some((size, align))
    }

    /// What needs a place right behind a bridge, the most strictly aligned first.
    fn items(&self, bridge: usize, left_off: &[Register]) -> Option<Vec<Item>> {
        let mut items: Vec<Item> = Vec::new();
        let mut add = |item: Item| {
            let place = items.partition_point(|other| other.align() >= item.align());
            items.insert(place, item);
        };
        for (at, function) in self.functions.iter().enumerate() {
            if function.bridge != Some(bridge) {
                continue;
            }
            for (index, bar) in function.bars.iter().enumerate() {
                if let Ok(Some(bar)) = bar
                    && bar.is_memory()
                    && !left_off.contains(&(at, index))
                {
                    add(Item::Bar {
                        function: at,
                        index,
                        size: bar.size,
                    });
                }
            }
            if function.kind == HeaderType::PciPciBridge && self.has_memory_behind(at) {
                let (size, align) = self.measure(at, left_off)?;
                add(Item::Window {
                    bridge: at,
                    size,
                    align,
                });
            }
        }
        Some(items)
    }

    fn has_memory_behind(&self, bridge: usize) -> bool {
        self.functions.iter().enumerate().any(|(at, function)| {
            let memory = function
                .bars
                .iter()
                .any(|bar| matches!(bar, Ok(Some(bar)) if bar.is_memory()));
            memory && self.is_behind(at, bridge)
        })
    }
}

/// Something behind a bridge that needs a place in its window.
enum Item {
    Bar {
        function: usize,
        index: usize,
        size: u64,
    },
    Window {
        bridge: usize,
        size: u64,
        align: u64,
    },
}

impl Item {
    fn size(&self) -> u64 {
        match *self {
            Self::Bar { size, .. } | Self::Window { size, .. } => size,
        }
    }

    fn align(&self) -> u64 {
        match *self {
            Self::Bar { size, .. } => size,
            Self::Window { align, .. } => align,
        }
    }
}
