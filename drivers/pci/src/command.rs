//! What a function may do on the bus, for as long as somebody answers for it.
//!
//! Source: PCI Local Bus 3.0, 6.2.2.

use pci_types::CommandRegister;

use super::access::ConfigSpace;

/// Bits of the command register that are set while this value lives, and then put back as found.
#[derive(Debug)]
#[must_use = "the bits are put back when the value is dropped"]
pub(super) struct Enabled {
    config: ConfigSpace,
    added: CommandRegister,
}

impl Enabled {
    /// Sets `bits`.
    pub(super) fn new(config: &ConfigSpace, bits: CommandRegister) -> Self {
        let found = config.update_command(|command| command | bits);
        Self {
            config: config.clone(),
            added: bits.difference(found),
        }
    }

    pub(super) fn config(&self) -> &ConfigSpace {
        &self.config
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        self.config
            .update_command(|command| command.difference(self.added));
    }
}
