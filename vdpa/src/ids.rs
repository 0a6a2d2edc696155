//! Small numbers for names such as `vdpa0`: handed out lowest first, returned when their guard
//! drops.

use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

/// A source of unique numbers below a limit.
#[derive(Debug)]
pub struct IdAllocator {
    limit: u32,
    /// In ascending order.
    taken: Mutex<Vec<u32>>,
}

/// Every number is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every id is taken")]
pub struct OutOfIds;

impl IdAllocator {
    /// An allocator of the numbers from 0 to `limit`, exclusive.
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: Mutex::new(Vec::new()),
        })
    }

    /// Takes the lowest free number.
    ///
    /// # Errors
    /// [`OutOfIds`], if none is left.
    pub fn allocate(self: &Arc<Self>) -> Result<IdGuard, OutOfIds> {
        let mut taken = self.taken.lock();
        let gap = (0..)
            .zip(taken.iter())
            .position(|(free, taken)| free != *taken);
        let place = gap.unwrap_or(taken.len());
        let number = u32::try_from(place).map_err(|_| OutOfIds)?;
        if number >= self.limit {
            return Err(OutOfIds);
        }
        taken.insert(place, number);
        Ok(IdGuard {
            number,
            allocator: Arc::clone(self),
        })
    }

    /// How many numbers are taken.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.taken.lock().len()
    }
}

/// A number that is taken for as long as this value lives.
///
/// It belongs inside the object that it names, so that no other object can get the name while
/// somebody still holds a reference to the first.
#[derive(Debug)]
pub struct IdGuard {
    number: u32,
    allocator: Arc<IdAllocator>,
}

impl IdGuard {
    /// The number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for IdGuard {
    fn drop(&mut self) {
        let mut taken = self.allocator.taken.lock();
        if let Ok(place) = taken.binary_search(&self.number) {
            taken.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_handed_out() {
        let ids = IdAllocator::new(10);
        let guards: Vec<_> = (0..4).map(|_| ids.allocate().unwrap()).collect();
        assert_eq!(
            guards.iter().map(IdGuard::number).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        let mut guards = guards;
        drop(guards.remove(1));
        assert_eq!(ids.allocate().unwrap().number(), 1);
    }

    #[test]
    fn exhaustion_is_an_error_and_ends_when_a_guard_drops() {
        let ids = IdAllocator::new(2);
        let _first = ids.allocate().unwrap();
        let second = ids.allocate().unwrap();
        assert_eq!(ids.allocate().unwrap_err(), OutOfIds);
        drop(second);
        assert_eq!(ids.allocate().unwrap().number(), 1);
        assert_eq!(ids.in_use(), 1);
    }
}
