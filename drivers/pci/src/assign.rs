//! Addresses for base address registers that firmware left without one.
//!
//! What firmware assigned is kept where it can work: it overlaps nothing, and the bridges in front
//! let it through. The rest gets addresses from the host's windows, or from what is free in the
//! window of its bridge. If a bridge's window is too small, the memory of everything behind it is
//! laid out anew. Behind a bridge only memory below 4 GiB is given away. A register for which there
//! is no room is left off, with its function's decode, and takes nothing from the others.
//!
//! Source: PCI-to-PCI Bridge 1.2, 3.2.5.6 to 3.2.5.10.

mod relocate;

use alloc::vec::Vec;
use core::ops::Range;

use pci_types::{CommandRegister, HeaderType};

use super::bar::{Bar, BarKind, Bars, write_bar};
use super::bridge;
use super::scan::Function;

/// The addresses that the machine sends to the PCI bus and that nothing else uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Memory below 4 GiB.
    pub mem32: Range<u64>,
    /// Memory above 4 GiB.
    pub mem64: Option<Range<u64>>,
    /// I/O ports.
    pub io: Option<Range<u64>>,
    /// The first memory address that the processor cannot reach. What firmware put there or above
    /// is moved.
    pub reach: u64,
}

/// Gives every register an address, as far as there is room, and opens the bridges in use. Behind
/// `port` alone, if there is one: whatever else is there is in use, and stays where it is.
/// `reserved` is, too.
pub(super) fn assign(
    functions: &mut [Function],
    windows: &Windows,
    port: Option<usize>,
    reserved: impl Iterator<Item = Taken>,
) {
    let mut layout = Layout::new(functions, windows, port, reserved);
    layout.fill();
    layout.relocate();
    layout.commit();
}

/// Finds places for registers that each stand for `count` ranges of their size, one behind the
/// other, on the bus where the function `at` is. The places that they have are kept if they can be.
/// Whether all have one; if not, none has changed.
pub(super) fn place_runs(
    functions: &mut [Function],
    windows: &Windows,
    at: usize,
    reserved: impl Iterator<Item = Taken>,
    bars: &mut Bars,
    count: u16,
) -> bool {
    let parent = functions[at].bridge;
    // Nothing is behind the function, so nothing moves.
    let mut layout = Layout::new(functions, windows, Some(at), reserved);
    let mut placed = *bars;
    for bar in placed.iter_mut().flatten().flatten() {
        let Some(length) = bar.size.checked_mul(count.into()) else {
            return false;
        };
        let Some(address) = layout.room(parent, bar, length) else {
            return false;
        };
        layout.take(parent, space_of(bar), address..address + length);
        bar.address = Some(address);
    }
    *bars = placed;
    true
}

const FOUR_GIB: u64 = 1 << 32;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Memory,
    Io,
}

/// A range on the bus behind `bridge` that belongs to a register or to a bridge's window.
pub(super) struct Taken {
    pub(super) bridge: Option<usize>,
    pub(super) space: Space,
    pub(super) range: Range<u64>,
}

struct Layout<'a> {
    functions: &'a mut [Function],
    windows: &'a Windows,
    /// Only what is behind this bridge may be changed.
    port: Option<usize>,
    taken: Vec<Taken>,
    /// Registers to be written: function and index.
    moved: Vec<(usize, usize)>,
}

impl<'a> Layout<'a> {
    fn new(
        functions: &'a mut [Function],
        windows: &'a Windows,
        port: Option<usize>,
        reserved: impl Iterator<Item = Taken>,
    ) -> Self {
        let mut layout = Self {
            functions,
            windows,
            port,
            taken: reserved.collect(),
            moved: Vec::new(),
        };
        layout.keep();
        layout
    }

    fn take(&mut self, bridge: Option<usize>, space: Space, range: Range<u64>) {
        self.taken.push(Taken {
            bridge,
            space,
            range,
        });
    }

    /// Notes what firmware assigned, and forgets what cannot work.
    fn keep(&mut self) {
        for at in 0..self.functions.len() {
            let parent = self.functions[at].bridge;
            for range in self.open_windows(at, Space::Memory) {
                self.take(parent, Space::Memory, range);
            }
            for range in self.open_windows(at, Space::Io) {
                self.take(parent, Space::Io, range);
            }
        }
        for at in 0..self.functions.len() {
            for index in 0..self.functions[at].bars.len() {
                self.keep_bar(at, index);
            }
        }
    }

    fn keep_bar(&mut self, at: usize, index: usize) {
        let parent = self.functions[at].bridge;
        let Ok(Some(bar)) = self.functions[at].bars[index] else {
            return;
        };
        let Some(address) = bar.address else { return };
        let range = address..address + bar.size;
        let space = space_of(&bar);
        let reachable = parent.is_none_or(|bridge| {
            self.open_windows(bridge, space)
                .iter()
                .any(|window| contains(window, &range))
        });
        let stays = reachable
            && self.is_in_reach(space, &range)
            && self.overlap(parent, space, &range).is_none();
        if stays || !self.is_free(at) {
            self.take(parent, space, range);
        } else {
            let address = self.functions[at].config.address();
            log::debug!("pci {address}: BAR {index} ({bar}) cannot stay where it is");
            self.set_address(at, index, None);
        }
    }

    /// Finds room for what is left, without moving anything.
    fn fill(&mut self) {
        let mut missing: Vec<(u64, usize, usize)> = Vec::new();
        for (at, index, bar) in self.missing() {
            // The largest first.
            let place = missing.partition_point(|(size, ..)| *size >= bar.size);
            missing.insert(place, (bar.size, at, index));
        }
        for (size, at, index) in missing {
            let Ok(Some(bar)) = self.functions[at].bars[index] else {
                continue;
            };
            let parent = self.functions[at].bridge;
            if let Some(address) = self.room(parent, &bar, size) {
                self.take(parent, space_of(&bar), address..address + size);
                self.set_address(at, index, Some(address));
            }
        }
    }

    /// A free place for `length` bytes of a register, on the bus behind `bridge`: that which it
    /// has, if it will do.
    fn room(&self, bridge: Option<usize>, bar: &Bar, length: u64) -> Option<u64> {
        let space = space_of(bar);
        let spaces = self.spaces(bridge, space);
        let will_do = |address: &u64| {
            let range = *address..address.saturating_add(length);
            spaces.iter().any(|window| contains(window, &range))
                && self.overlap(bridge, space, &range).is_none()
        };
        if let Some(address) = bar.address.filter(will_do) {
            return Some(address);
        }
        let end = if bar.kind == BarKind::Memory32 {
            FOUR_GIB
        } else {
            u64::MAX
        };
        spaces.iter().find_map(|range| {
            let window = range.start..range.end.min(end);
            self.find(bridge, space, &window, length, bar.size)
        })
    }

    /// Writes what has changed, and lets bridges pass on what goes through them.
    fn commit(&mut self) {
        for &(at, index) in &self.moved {
            let function = &self.functions[at];
            if let Ok(Some(bar)) = &function.bars[index] {
                log::debug!("pci {}: BAR {index} {bar}", function.config.address());
                write_bar(&function.config, index, bar);
            }
        }
        for (at, index, bar) in self.missing() {
            let function = &self.functions[at];
            let address = function.config.address();
            log::warn!("pci {address}: no room for BAR {index} ({bar}), which is left off");
            // The register may still hold an address that is another one's now. A bridge forwards
            // by the same bits.
            if function.kind == HeaderType::Endpoint {
                let decode = match space_of(&bar) {
                    Space::Memory => CommandRegister::MEMORY_ENABLE,
                    Space::Io => CommandRegister::IO_ENABLE,
                };
                function
                    .config
                    .update_command(|command| command.difference(decode));
            }
        }
        for at in 0..self.functions.len() {
            let leads_on = |function: &Function| function.bridge == Some(at);
            let changes = self.is_free(at) || self.port == Some(at);
            if changes && self.functions.iter().any(leads_on) {
                let forward = CommandRegister::MEMORY_ENABLE
                    | CommandRegister::IO_ENABLE
                    | CommandRegister::BUS_MASTER_ENABLE;
                self.functions[at]
                    .config
                    .update_command(|command| command | forward);
            }
        }
    }

    fn set_address(&mut self, at: usize, index: usize, address: Option<u64>) {
        if let Ok(Some(bar)) = &mut self.functions[at].bars[index] {
            bar.address = address;
            if !self.moved.contains(&(at, index)) {
                self.moved.push((at, index));
            }
        }
    }

    /// Registers that have no address and may get one.
    fn missing(&self) -> impl Iterator<Item = (usize, usize, Bar)> {
        self.functions
            .iter()
            .enumerate()
            .filter(|(at, _)| self.is_free(*at))
            .flat_map(|(at, function)| {
                let bars = function.bars.iter().enumerate();
                bars.filter_map(move |(index, bar)| match bar {
                    Ok(Some(bar)) if bar.address.is_none() => Some((at, index, *bar)),
                    _ => None,
                })
            })
    }

    /// Where the bus behind `bridge`, or the root bus, has addresses.
    fn spaces(&self, bridge: Option<usize>, space: Space) -> Vec<Range<u64>> {
        if let Some(bridge) = bridge {
            return self.open_windows(bridge, space);
        }
        let root = match space {
            Space::Memory => [Some(&self.windows.mem32), self.windows.mem64.as_ref()],
            Space::Io => [self.windows.io.as_ref(), None],
        };
        root.into_iter().flatten().cloned().collect()
    }

    /// Whether the processor can address all of `range`.
    fn is_in_reach(&self, space: Space, range: &Range<u64>) -> bool {
        space == Space::Io || range.end <= self.windows.reach
    }

    /// What a bridge lets through and the bridges before it too, as far as the processor reaches
    /// it; nothing, if the function is no bridge.
    fn open_windows(&self, at: usize, space: Space) -> Vec<Range<u64>> {
        let function = &self.functions[at];
        if function.kind != HeaderType::PciPciBridge {
            return Vec::new();
        }
        let config = &function.config;
        let own = match space {
            Space::Memory => [
                bridge::memory_window(config),
                bridge::prefetchable_window(config),
            ],
            Space::Io => [bridge::io_window(config), None],
        };
        let mut windows: Vec<Range<u64>> = own.into_iter().flatten().collect();
        windows.retain(|window| self.is_in_reach(space, window));
        if let Some(above) = function.bridge {
            let outer = self.open_windows(above, space);
            windows.retain(|window| outer.iter().any(|outer| contains(outer, window)));
        }
        windows
    }

    /// The first free place in `window`.
    fn find(
        &self,
        bridge: Option<usize>,
        space: Space,
        window: &Range<u64>,
        size: u64,
        align: u64,
    ) -> Option<u64> {
        // Address zero means "unassigned".
        let mut start = window.start.max(1).checked_next_multiple_of(align)?;
        loop {
            let end = start.checked_add(size)?;
            if end > window.end {
                return None;
            }
            match self.overlap(bridge, space, &(start..end)) {
                None => return Some(start),
                Some(other) => start = other.end.checked_next_multiple_of(align)?,
            }
        }
    }

    /// A range on the same bus that overlaps this one.
    fn overlap(
        &self,
        bridge: Option<usize>,
        space: Space,
        range: &Range<u64>,
    ) -> Option<&Range<u64>> {
        let here = self
            .taken
            .iter()
            .filter(|taken| taken.bridge == bridge && taken.space == space);
        here.map(|taken| &taken.range)
            .find(|taken| taken.start < range.end && range.start < taken.end)
    }

    /// Whether the function may be changed.
    fn is_free(&self, at: usize) -> bool {
        self.port.is_none_or(|port| self.is_behind(at, port))
    }

    fn is_behind(&self, at: usize, bridge: usize) -> bool {
        let mut up = self.functions[at].bridge;
        while let Some(above) = up {
            if above == bridge {
                return true;
            }
            up = self.functions[above].bridge;
        }
        false
    }
}

fn contains(outer: &Range<u64>, inner: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn space_of(bar: &Bar) -> Space {
    if bar.is_memory() {
        Space::Memory
    } else {
        Space::Io
    }
}
