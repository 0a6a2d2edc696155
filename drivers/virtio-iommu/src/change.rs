//! What a domain maps, and how it gets from there to something else: one step for each mapping that
//! comes or goes.

use alloc::vec::Vec;

use vdpa::dma::IovaSpace;
use vdpa::iotlb::{Capacity, Iotlb, IovaRange, Permission};
use vdpa::platform::{DomainChange, DomainError};
use virtq::DmaAddr;

use crate::config::Limits;

/// A mapping, as the IOMMU was given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) range: IovaRange,
    pub(crate) permission: Permission,
    pub(crate) addr: DmaAddr,
}

/// A mapping comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Map(Piece),
    Unmap(Piece),
}

impl Step {
    /// What brings back the state of before.
    pub(crate) fn inverse(self) -> Self {
        match self {
            Self::Map(piece) => Self::Unmap(piece),
            Self::Unmap(piece) => Self::Map(piece),
        }
    }

    fn range(&self) -> IovaRange {
        match self {
            Self::Map(piece) | Self::Unmap(piece) => piece.range,
        }
    }
}

/// What a domain maps.
#[derive(Debug)]
pub(crate) struct Table(Iotlb<DmaAddr>);

impl Table {
    pub(crate) fn new() -> Self {
        Self(Iotlb::new(Capacity::Unlimited))
    }

    /// All mappings, in the order of their addresses.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.0.iter().map(|mapping| Piece {
            range: mapping.range,
            permission: mapping.permission,
            addr: *mapping.target,
        })
    }

    /// How many bytes are mapped.
    pub(crate) fn bytes(&self) -> u128 {
        self.pieces().map(|piece| piece.range.len()).sum()
    }

    /// Whether something is mapped at the address.
    pub(crate) fn maps(&self, addr: u64) -> bool {
        self.0.translate(addr, Permission::empty()).is_ok()
    }

    /// Makes changes one after the other, and says in which steps.
    ///
    /// # Errors
    /// [`DomainError`]: nothing has changed.
    pub(crate) fn change(
        &mut self,
        changes: &[DomainChange],
        limits: &Limits,
        space: &IovaSpace,
    ) -> Result<Vec<Step>, DomainError> {
        let mut steps = Vec::new();
        for change in changes {
            if let Err(error) = self.make(*change, limits, space, &mut steps) {
                self.undo(&steps);
                return Err(error);
            }
        }
        Ok(steps)
    }

    fn make(
        &mut self,
        change: DomainChange,
        limits: &Limits,
        space: &IovaSpace,
        steps: &mut Vec<Step>,
    ) -> Result<(), DomainError> {
        let (DomainChange::Map { range, .. } | DomainChange::Unmap(range)) = change;
        if !limits.is_whole_pages(range) {
            return Err(DomainError::Misaligned);
        }
        match change {
            DomainChange::Map {
                range,
                permission,
                addr,
            } => {
                if !addr.0.is_multiple_of(limits.page) {
                    return Err(DomainError::Misaligned);
                }
                let wraps = addr.0.checked_add(range.last() - range.first()).is_none();
                if wraps || !space.contains(range) {
                    return Err(DomainError::Refused);
                }
                let piece = Piece {
                    range,
                    permission,
                    addr,
                };
                self.take(Step::Map(piece), steps)
            }
            DomainChange::Unmap(range) => self.take_away(range, steps),
        }
    }

    /// Takes away all mappings that a range touches, and maps again what lies beyond it.
    fn take_away(&mut self, range: IovaRange, steps: &mut Vec<Step>) -> Result<(), DomainError> {
        let touched: Vec<_> = self
            .0
            .overlaps(range)
            .map(|mapping| mapping.range)
            .collect();
        for whole in touched {
            let Some(piece) = self.pieces_in(whole).next() else {
                continue;
            };
            self.take(Step::Unmap(piece), steps)?;
            let below = range.first().checked_sub(1);
            let above = range.last().checked_add(1);
            let below = below.and_then(|last| IovaRange::from_bounds(whole.first(), last).ok());
            let above = above.and_then(|first| IovaRange::from_bounds(first, whole.last()).ok());
            for rest in below.into_iter().chain(above) {
                let offset = rest.first() - whole.first();
                let rest = Piece {
                    range: rest,
                    addr: DmaAddr(piece.addr.0 + offset),
                    ..piece
                };
                self.take(Step::Map(rest), steps)?;
            }
        }
        Ok(())
    }

    fn pieces_in(&self, range: IovaRange) -> impl Iterator<Item = Piece> {
        self.0.overlaps(range).map(|mapping| Piece {
            range: mapping.range,
            permission: mapping.permission,
            addr: *mapping.target,
        })
    }

    fn take(&mut self, step: Step, steps: &mut Vec<Step>) -> Result<(), DomainError> {
        match step {
            Step::Map(piece) => {
                let mapped = self.0.map(piece.range, piece.permission, piece.addr);
                mapped.map_err(|_| DomainError::Refused)?;
            }
            Step::Unmap(piece) => self.forget(piece.range),
        }
        steps.push(step);
        Ok(())
    }

    /// Goes back to where the table was before the steps.
    pub(crate) fn undo(&mut self, steps: &[Step]) {
        for step in steps.iter().rev() {
            // It was there before, so it fits.
            let _ = self.take(step.inverse(), &mut Vec::new());
        }
    }

    /// Nothing is mapped there any more.
    pub(crate) fn forget(&mut self, range: IovaRange) {
        // A table without a limit takes it.
        let _ = self.0.unmap(range);
    }
}

/// Steps in groups, each of which can be made in any order: an IOMMU promises none.
pub(crate) fn waves(steps: &[Step]) -> impl Iterator<Item = &[Step]> {
    let mut rest = steps;
    core::iter::from_fn(move || {
        let first = rest.first()?;
        let mut hull = first.range();
        let mut len = 1;
        for step in &rest[1..] {
            let range = step.range();
            let is_beside = range.first() > hull.last() || range.last() < hull.first();
            if !is_beside && rest[..len].iter().any(|other| touch(other.range(), range)) {
                break;
            }
            hull = join(hull, range);
            len += 1;
        }
        let (wave, behind) = rest.split_at(len);
        rest = behind;
        Some(wave)
    })
}

fn touch(one: IovaRange, other: IovaRange) -> bool {
    one.first() <= other.last() && other.first() <= one.last()
}

/// From the first address of both to the last.
fn join(one: IovaRange, other: IovaRange) -> IovaRange {
    let (first, last) = (one.first().min(other.first()), one.last().max(other.last()));
    IovaRange::from_bounds(first, last).unwrap_or(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        page: 0x1000,
        input: IovaRange::ALL,
        domains: (0, 9),
        probe_size: None,
        mmio: false,
    };

    fn range(first: u64, last: u64) -> IovaRange {
        IovaRange::from_bounds(first, last).unwrap()
    }

    fn map(first: u64, last: u64, addr: u64) -> DomainChange {
        DomainChange::Map {
            range: range(first, last),
            permission: Permission::all(),
            addr: DmaAddr(addr),
        }
    }

    fn piece(first: u64, last: u64, addr: u64) -> Piece {
        Piece {
            range: range(first, last),
            permission: Permission::all(),
            addr: DmaAddr(addr),
        }
    }

    fn change(table: &mut Table, changes: &[DomainChange]) -> Result<Vec<Step>, DomainError> {
        table.change(changes, &LIMITS, &IovaRange::ALL.into())
    }

    #[test]
    fn what_is_left_of_a_mapping_is_mapped_again_after_all_of_it_is_gone() {
        let mut table = Table::new();
        let steps = change(&mut table, &[map(0x1000, 0x4fff, 0x9000)]).unwrap();
        assert_eq!(steps, [Step::Map(piece(0x1000, 0x4fff, 0x9000))]);
        let steps = change(&mut table, &[DomainChange::Unmap(range(0x2000, 0x2fff))]).unwrap();
        let expected = [
            Step::Unmap(piece(0x1000, 0x4fff, 0x9000)),
            Step::Map(piece(0x1000, 0x1fff, 0x9000)),
            Step::Map(piece(0x3000, 0x4fff, 0xb000)),
        ];
        assert_eq!(steps, expected);
        let waves: Vec<_> = waves(&steps).map(<[Step]>::len).collect();
        assert_eq!(waves, [1, 2]);
        assert_eq!(table.bytes(), 0x3000);
    }

    #[test]
    fn steps_that_do_not_touch_go_together_in_any_order() {
        let mut table = Table::new();
        let changes = [
            map(0x5000, 0x5fff, 0),
            map(0x1000, 0x1fff, 0),
            map(0x3000, 0x3fff, 0),
            DomainChange::Unmap(range(0x3000, 0x3fff)),
            map(0x2000, 0x2fff, 0),
            DomainChange::Unmap(range(0, u64::MAX)),
        ];
        let steps = change(&mut table, &changes).unwrap();
        let waves: Vec<_> = waves(&steps).map(<[Step]>::len).collect();
        assert_eq!(waves, [3, 3, 2]);
        assert_eq!(table.bytes(), 0);
    }

    #[test]
    fn a_change_that_cannot_be_leaves_the_table_as_it_was() {
        let mut table = Table::new();
        change(&mut table, &[map(0x1000, 0x4fff, 0x9000)]).unwrap();
        let before: Vec<_> = table.pieces().collect();
        let wrong = [
            (map(0x4000, 0x4fff, 0), DomainError::Refused),
            (map(0x8000, 0x87ff, 0), DomainError::Misaligned),
            (map(0x8000, 0x8fff, 0x800), DomainError::Misaligned),
            (map(0x8000, 0x9fff, u64::MAX - 0xfff), DomainError::Refused),
            (
                DomainChange::Unmap(range(0x1000, 0x1001)),
                DomainError::Misaligned,
            ),
        ];
        for (wrong, error) in wrong {
            let changes = [DomainChange::Unmap(range(0x2000, 0x2fff)), wrong];
            assert_eq!(change(&mut table, &changes), Err(error));
            assert_eq!(table.pieces().collect::<Vec<_>>(), before);
        }
    }
}
