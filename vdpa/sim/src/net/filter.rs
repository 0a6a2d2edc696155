//! Which frames a network card takes (VIRTIO 1.2, 5.1.6.5.1 and 5.1.6.5.2).

use vdpa::MacAddress;

/// The most addresses of a kind that a card remembers. With more it takes all frames of that kind,
/// as the specification has it.
const TABLE_LEN: usize = 64;

/// Whether a mode is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Off,
    On,
}

/// The receive filter of a card.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) mac: MacAddress,
    /// Takes everything.
    pub(super) promiscuous: Mode,
    /// Takes everything that is sent to a group.
    pub(super) all_multicast: Mode,
    pub(super) unicast: Table,
    /// Nothing until the driver has said which groups: then all of them pass.
    pub(super) multicast: Option<Table>,
}

/// Some addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    addresses: [[u8; 6]; TABLE_LEN],
    /// How many the driver has named, which may be more than there is room for.
    named: u32,
}

impl Filter {
    /// A card that takes what is sent to it, to all or to any group.
    pub(super) fn new(mac: MacAddress) -> Self {
        Self {
            mac,
            promiscuous: Mode::Off,
            all_multicast: Mode::Off,
            unicast: Table::new(),
            multicast: None,
        }
    }

    /// Whether the card takes a frame for this address.
    #[inline]
    pub(super) fn accepts(&self, to: [u8; 6]) -> bool {
        const BROADCAST: [u8; 6] = [0xff; 6];
        if to == self.mac.0 || to == BROADCAST || self.promiscuous == Mode::On {
            return true;
        }
        let to_group = to[0] & 1 == 1;
        match &self.multicast {
            _ if !to_group => self.unicast.contains(to),
            None => true,
            Some(groups) => self.all_multicast == Mode::On || groups.contains(to),
        }
    }
}

impl Table {
    /// No address.
    pub(super) const fn new() -> Self {
        Self {
            addresses: [[0; 6]; TABLE_LEN],
            named: 0,
        }
    }

    /// One more address.
    pub(super) fn push(&mut self, address: [u8; 6]) {
        if let Some(place) = self.addresses.get_mut(self.named as usize) {
            *place = address;
        }
        self.named = self.named.saturating_add(1);
    }

    /// Whether an address more would be forgotten.
    pub(super) fn is_full(&self) -> bool {
        self.named as usize > TABLE_LEN
    }

    fn contains(&self, address: [u8; 6]) -> bool {
        self.addresses
            .get(..self.named as usize)
            .is_none_or(|addresses| addresses.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

    #[test]
    fn own_address_broadcast_and_groups_pass_at_first() {
        let filter = Filter::new(MacAddress(OWN));
        assert!(filter.accepts(OWN) && filter.accepts([0xff; 6]) && filter.accepts(GROUP));
        assert!(!filter.accepts([2, 0, 0, 0, 0, 2]));
    }

    #[test]
    fn once_groups_are_named_only_they_pass() {
        let mut filter = Filter::new(MacAddress(OWN));
        filter.multicast = Some(Table::new());
        assert!(!filter.accepts(GROUP) && filter.accepts([0xff; 6]));
        filter.multicast.as_mut().unwrap().push(GROUP);
        assert!(filter.accepts(GROUP) && !filter.accepts([0x33, 0x33, 0, 0, 0, 2]));
        filter.all_multicast = Mode::On;
        assert!(filter.accepts([0x33, 0x33, 0, 0, 0, 2]));
    }

    #[test]
    fn a_table_that_is_too_long_lets_all_of_its_kind_pass() {
        let mut filter = Filter::new(MacAddress(OWN));
        for last in 0..=64 {
            filter.unicast.push([2, 1, 0, 0, 0, last]);
        }
        assert!(filter.accepts([2, 9, 9, 9, 9, 9]));
        filter.promiscuous = Mode::On;
        filter.multicast = Some(Table::new());
        assert!(filter.accepts(GROUP));
    }
}
