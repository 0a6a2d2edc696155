//! The card's interrupts: an event counter of the client for each vector that the client has armed.
//!
//! Source: Linux, include/uapi/linux/vfio.h, `VFIO_DEVICE_SET_IRQS`.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_PCI_MSIX_IRQ_INDEX,
};

use crate::{Host, Message};

/// What the client may ask for.
const ARM: u32 = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
const RAISE: u32 = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;

/// The counters by vector.
#[derive(Debug)]
pub(super) struct Vectors(Mutex<Vec<Option<File>>>);

impl Vectors {
    /// So many, none of them armed.
    pub(super) fn new(count: u16) -> Self {
        Self(Mutex::new((0..count).map(|_| None).collect()))
    }

    /// Arms, disarms or raises the vectors from `start` on.
    ///
    /// # Errors
    ///
    /// `INVAL` for interrupts or vectors that are not there and for a wrong number of files,
    /// `OPNOTSUPP` for what is not known: a mask is part of the table, which the client keeps.
    pub(super) fn set(
        &self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        files: Vec<File>,
    ) -> Result<(), Errno> {
        if index != VFIO_PCI_MSIX_IRQ_INDEX {
            return Err(Errno::INVAL);
        }
        let mut lines = self.lock();
        let place = |number: u32| usize::try_from(number).map_err(|_| Errno::INVAL);
        let (start, count) = (place(start)?, place(count)?);
        let end = start.checked_add(count).ok_or(Errno::INVAL)?;
        let chosen = lines.get_mut(start..end).ok_or(Errno::INVAL)?;
        match flags {
            ARM if files.len() == count && count > 0 => {
                files.iter().try_for_each(never_wait)?;
                for (line, file) in chosen.iter_mut().zip(files) {
                    *line = Some(file);
                }
            }
            ARM if files.is_empty() => chosen.fill_with(|| None),
            RAISE if files.is_empty() && count > 0 => chosen.iter().for_each(raise),
            // Nothing of no length is how all of them are let go.
            RAISE if files.is_empty() && start == 0 => lines.fill_with(|| None),
            ARM | RAISE => return Err(Errno::INVAL),
            _ => return Err(Errno::OPNOTSUPP),
        }
        Ok(())
    }

    /// Nothing panics with the lock held.
    fn lock(&self) -> MutexGuard<'_, Vec<Option<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for Vectors {
    fn interrupt(&self, vector: u16, _message: Message) {
        if let Some(line) = self.lock().get(usize::from(vector)) {
            raise(line);
        }
    }
}

/// A counter that is full must not hold up the card.
fn never_wait(file: &File) -> Result<(), Errno> {
    fcntl_setfl(file, fcntl_getfl(file)? | OFlags::NONBLOCK)
}

fn raise(line: &Option<File>) {
    if let Some(mut counter) = line.as_ref() {
        // A counter that takes no more has events enough, and one that fails has nobody behind it.
        let _ = counter.write_all(&1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    const MSIX: u32 = VFIO_PCI_MSIX_IRQ_INDEX;

    /// A counter, and the client's end of it.
    fn counter() -> (File, File) {
        let file = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        (file.try_clone().unwrap(), file)
    }

    fn count(mut file: &File) -> u64 {
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes)
            .map_or(0, |()| u64::from_ne_bytes(bytes))
    }

    fn interrupt(vectors: &Vectors, vector: u16) {
        let message = Message::default();
        vectors.interrupt(vector, message);
    }

    #[test]
    fn armed_vectors_are_raised_and_others_are_not() {
        let vectors = Vectors::new(3);
        let ((first, seen_first), (second, seen_second)) = (counter(), counter());
        vectors.set(MSIX, ARM, 1, 2, vec![first, second]).unwrap();
        for vector in [0, 1, 1, 2, 3, u16::MAX] {
            interrupt(&vectors, vector);
        }
        assert_eq!((count(&seen_first), count(&seen_second)), (2, 1));
        vectors.set(MSIX, RAISE, 2, 1, Vec::new()).unwrap();
        assert_eq!((count(&seen_first), count(&seen_second)), (0, 1));
        vectors.set(MSIX, ARM, 1, 1, Vec::new()).unwrap();
        interrupt(&vectors, 1);
        interrupt(&vectors, 2);
        assert_eq!((count(&seen_first), count(&seen_second)), (0, 1));
        vectors.set(MSIX, RAISE, 0, 0, Vec::new()).unwrap();
        interrupt(&vectors, 2);
        assert_eq!(count(&seen_second), 0);
    }

    #[test]
    fn full_counter_holds_nobody_up() {
        let vectors = Vectors::new(1);
        let full = File::from(eventfd(0, EventfdFlags::empty()).unwrap());
        (&full).write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
        vectors.set(MSIX, ARM, 0, 1, vec![full]).unwrap();
        interrupt(&vectors, 0);
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let vectors = Vectors::new(2);
        let set = |index, flags, start, count, files: usize| {
            let files = (0..files).map(|_| counter().0).collect();
            vectors.set(index, flags, start, count, files)
        };
        assert_eq!(set(0, ARM, 0, 1, 1), Err(Errno::INVAL));
        assert_eq!(set(u32::MAX, RAISE, 0, 0, 0), Err(Errno::INVAL));
        assert_eq!(set(MSIX, ARM, 1, 2, 2), Err(Errno::INVAL));
        assert_eq!(set(MSIX, ARM, u32::MAX, u32::MAX, 0), Err(Errno::INVAL));
        assert_eq!(set(MSIX, ARM, 0, 2, 1), Err(Errno::INVAL));
        assert_eq!(set(MSIX, ARM, 0, 0, 1), Err(Errno::INVAL));
        assert_eq!(set(MSIX, RAISE, 0, 1, 1), Err(Errno::INVAL));
        for flags in [0, !0, ARM | RAISE, VFIO_IRQ_SET_DATA_NONE | 8] {
            assert_eq!(set(MSIX, flags, 0, 1, 0), Err(Errno::OPNOTSUPP));
        }
    }
}
