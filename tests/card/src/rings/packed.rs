//! Packed queues (VIRTIO 1.2, 2.8).

use super::{
    CHAIN_BYTES, DESCRIPTOR, Descriptor, Entry, Fault, INDIRECT, NEXT, Parts, Rings, WRITE,
};

/// Flags of a packed descriptor: when it was made available, and when it was used.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// `RING_EVENT_FLAGS_DESC` (2.8.10).
const EVENT_AT: u16 = 2;

impl Rings {
    pub(super) fn look_packed(&mut self) -> Result<(), Fault> {
        self.check_suppression()?;
        for _ in 0..self.size {
            let entry = self.entry(self.addresses.descriptor.0, self.next)?;
            if !is_available(Descriptor::new(entry.bytes).fourth, self.wrap) {
                break;
            }
            let (id, entries) = self.packed_chain()?;
            self.expose(id, entries)?;
        }
        Ok(())
    }

    /// What the driver says of interrupts.
    fn check_suppression(&self) -> Result<(), Fault> {
        let Some(flags) = self.word(self.addresses.driver.0 + 2) else {
            return Ok(());
        };
        let most = if self.event_idx {
            EVENT_AT
        } else {
            EVENT_AT - 1
        };
        if flags > most {
            return Err(("2.8.10", format!("event suppression flags {flags:#x}")));
        }
        Ok(())
    }

    /// Takes the list that starts here, and goes on behind it.
    fn packed_chain(&mut self) -> Result<(u16, Vec<Entry>), Fault> {
        let mut entries = Vec::new();
        let mut parts = Parts::default();
        loop {
            let entry = self.entry(self.addresses.descriptor.0, self.next)?;
            let Descriptor {
                addr,
                len,
                third: id,
                fourth: flags,
            } = Descriptor::new(entry.bytes);
            if !is_available(flags, self.wrap) {
                let fault = "the first descriptor of a list was made available before the others";
                return Err(("2.8.17", fault.into()));
            }
            if entries.len() >= usize::from(self.size) {
                return Err(("2.8.17", "a list longer than the queue".into()));
            }
            entries.push(entry);
            if flags & !(NEXT | WRITE | INDIRECT | AVAIL | USED) != 0 {
                return Err(("2.8.13", format!("flags {flags:#x} of a descriptor")));
            }
            self.next += 1;
            if self.next == self.size {
                (self.next, self.wrap) = (0, !self.wrap);
            }
            if flags & INDIRECT != 0 {
                if !self.indirect {
                    return Err(("2.8.19", "INDIRECT was not negotiated".into()));
                }
                if flags & NEXT != 0 || entries.len() > 1 {
                    return Err(("2.8.19", "INDIRECT in a list of NEXT".into()));
                }
                self.packed_table(addr, len, &mut parts, &mut entries)?;
            } else {
                parts.add(len, flags & WRITE != 0, "2.8.17")?;
            }
            if flags & NEXT == 0 {
                if parts.bytes > CHAIN_BYTES {
                    return Err(("2.8.17", format!("a list of {} bytes", parts.bytes)));
                }
                return Ok((id, entries));
            }
        }
    }

    fn packed_table(
        &self,
        table: u64,
        len: u32,
        parts: &mut Parts,
        entries: &mut Vec<Entry>,
    ) -> Result<(), Fault> {
        let count = u64::from(len) / DESCRIPTOR;
        if count == 0 || !u64::from(len).is_multiple_of(DESCRIPTOR) {
            return Err(("2.8.7", format!("an indirect table of {len} bytes")));
        }
        if count > u64::from(self.size) {
            return Err((
                "2.8.19",
                format!("an indirect table of {count} descriptors"),
            ));
        }
        for index in (0..self.size).take(usize::try_from(count).unwrap_or(0)) {
            let entry = self.entry(table, index)?;
            let Descriptor {
                len, fourth: flags, ..
            } = Descriptor::new(entry.bytes);
            entries.push(entry);
            if flags & !WRITE != 0 {
                return Err(("2.8.19", format!("flags {flags:#x} within a table")));
            }
            parts.add(len, flags & WRITE != 0, "2.8.17")?;
        }
        Ok(())
    }
}

fn is_available(flags: u16, wrap: bool) -> bool {
    (flags & AVAIL != 0) == wrap && (flags & USED != 0) != wrap
}
