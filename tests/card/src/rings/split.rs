//! Split queues (VIRTIO 1.2, 2.7).

use super::{
    CHAIN_BYTES, DESCRIPTOR, Descriptor, Entry, Fault, INDIRECT, NEXT, Parts, Rings, WRITE,
};

impl Rings {
    pub(super) fn look_split(&mut self) -> Result<(), Fault> {
        let available = self.addresses.driver.0;
        let (Some(flags), Some(index)) = (self.word(available), self.word(available + 2)) else {
            return Ok(());
        };
        if flags > u16::from(!self.event_idx) {
            return Err(("2.7.7.1", format!("flags of the available ring {flags:#x}")));
        }
        let new = index.wrapping_sub(self.next);
        let room = usize::from(self.size).saturating_sub(self.exposed.len());
        if usize::from(new) > room {
            let fault = format!("index {index} of the available ring after {}", self.next);
            return Err(("2.7.6.1", fault));
        }
        while self.next != index {
            let slot = u64::from(self.next % self.size);
            let head = self.word(available + 4 + 2 * slot).unwrap_or(u16::MAX);
            let entries = self.split_chain(head)?;
            self.expose(head, entries)?;
            self.next = self.next.wrapping_add(1);
        }
        Ok(())
    }

    fn split_chain(&self, head: u16) -> Result<Vec<Entry>, Fault> {
        let mut entries = Vec::new();
        let mut parts = Parts::default();
        let mut index = head;
        loop {
            if index >= self.size {
                return Err(("2.7.5", format!("descriptor {index} of {}", self.size)));
            }
            let entry = self.entry(self.addresses.descriptor.0, index)?;
            let Descriptor {
                addr,
                len,
                third: flags,
                fourth: next,
            } = Descriptor::new(entry.bytes);
            entries.push(entry);
            if flags & !(NEXT | WRITE | INDIRECT) != 0 {
                return Err(("2.7.5", format!("flags {flags:#x} of a descriptor")));
            }
            if flags & INDIRECT != 0 {
                if !self.indirect {
                    return Err(("2.7.5.3.1", "INDIRECT was not negotiated".into()));
                }
                if flags & NEXT != 0 {
                    return Err(("2.7.5.3.1", "INDIRECT and NEXT at once".into()));
                }
                self.split_table(addr, len, &mut parts, &mut entries)?;
                break;
            }
            parts.add(len, flags & WRITE != 0, "2.7.4.2")?;
            self.check_count(&parts)?;
            if flags & NEXT == 0 {
                break;
            }
            let follows = if index + 1 == self.size { 0 } else { index + 1 };
            if self.in_order && next != follows {
                return Err(("2.7.5.2", format!("with IN_ORDER, {next} follows {index}")));
            }
            index = next;
        }
        if parts.bytes > CHAIN_BYTES {
            return Err(("2.7.5.2", format!("a chain of {} bytes", parts.bytes)));
        }
        Ok(entries)
    }

    fn split_table(
        &self,
        table: u64,
        len: u32,
        parts: &mut Parts,
        entries: &mut Vec<Entry>,
    ) -> Result<(), Fault> {
        let count = u64::from(len) / DESCRIPTOR;
        if count == 0 || !u64::from(len).is_multiple_of(DESCRIPTOR) {
            return Err(("2.7.5.3", format!("an indirect table of {len} bytes")));
        }
        let mut index = 0;
        loop {
            if u64::from(index) >= count {
                return Err(("2.7.5.3", format!("descriptor {index} of {count}")));
            }
            let entry = self.entry(table, index)?;
            let Descriptor {
                len,
                third: flags,
                fourth: next,
                ..
            } = Descriptor::new(entry.bytes);
            entries.push(entry);
            if flags & INDIRECT != 0 {
                let fault = "INDIRECT within an indirect table".into();
                return Err(("2.7.5.3.1", fault));
            }
            if flags & !(NEXT | WRITE) != 0 {
                return Err(("2.7.5", format!("flags {flags:#x} of a descriptor")));
            }
            parts.add(len, flags & WRITE != 0, "2.7.4.2")?;
            self.check_count(parts)?;
            if flags & NEXT == 0 {
                return Ok(());
            }
            if self.in_order && next != index + 1 {
                let fault = format!("with IN_ORDER, {next} follows {index} in a table");
                return Err(("2.7.5.3.1", fault));
            }
            index = next;
        }
    }

    /// A loop never ends, so it is longer, too.
    fn check_count(&self, parts: &Parts) -> Result<(), Fault> {
        if parts.count > u32::from(self.size) {
            return Err(("2.7.5.3.1", "a chain longer than the queue".into()));
        }
        Ok(())
    }
}
