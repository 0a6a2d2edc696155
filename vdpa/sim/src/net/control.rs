//! The control queue (VIRTIO 1.2, 5.1.6.5): what the driver wants the card to be.

use vdpa::Features;
use vdpa::MacAddress;
use virtio::net::{Ctrl, F, ctrl};
use virtq::device::Chain;

use crate::sim_queue::SimQueue;

use super::filter::{Filter, Mode, Table};

/// What the card answers.
const OK: u8 = 0;
const ERR: u8 = 1;

/// What the driver has told the card.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) filter: Filter,
    /// How many of the queue pairs are in use.
    pub(super) pairs: u16,
}

/// The card does not know the command, or it makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Where a command stands that is read field by field.
struct Fields<'a> {
    port: &'a mut SimQueue,
    chain: &'a Chain,
    offset: u64,
}

impl Control {
    /// A card that nobody has told anything.
    pub(super) fn new(mac: MacAddress) -> Self {
        Self {
            filter: Filter::new(mac),
            pairs: 1,
        }
    }

    /// Carries out one command of a card with so many queue pairs, and answers it. Returns how many
    /// bytes were written, and whether the command was refused.
    pub(super) fn serve(
        &mut self,
        port: &mut SimQueue,
        chain: &Chain,
        features: Features,
        pairs_max: u16,
    ) -> (u32, Result<(), Refused>) {
        let fields = Fields {
            port: &mut *port,
            chain,
            offset: 0,
        };
        let result = self.execute(fields, features, pairs_max);
        let ack = if result.is_ok() { OK } else { ERR };
        match port.write(chain, 0, &[ack]) {
            Ok(1) => (1, result),
            _ => (0, Err(Refused)),
        }
    }

    fn execute(
        &mut self,
        mut fields: Fields<'_>,
        features: Features,
        pairs_max: u16,
    ) -> Result<(), Refused> {
        let [class, command] = fields.read()?;
        let class = Ctrl::try_from(class).map_err(|_| Refused)?;
        match class {
            Ctrl::Rx if features.contains(F::CTRL_RX) => self.set_mode(command, fields),
            Ctrl::Mac if command == ctrl::Mac::AddrSet.into() => {
                let mac = MacAddress(fields.read()?);
                if !features.contains(F::CTRL_MAC_ADDR) || !mac.is_unicast() {
                    return Err(Refused);
                }
                self.filter.mac = mac;
                Ok(())
            }
            Ctrl::Mac if command == ctrl::Mac::TableSet.into() && features.contains(F::CTRL_RX) => {
                let unicast = fields.read_table()?;
                let multicast = fields.read_table()?;
                self.filter.unicast = unicast;
                self.filter.multicast = Some(multicast);
                Ok(())
            }
            Ctrl::Mq if command == ctrl::Mq::VqPairsSet.into() => {
                let pairs = u16::from_le_bytes(fields.read()?);
                if !features.contains(F::MQ) || !(1..=pairs_max).contains(&pairs) {
                    return Err(Refused);
                }
                self.pairs = pairs;
                Ok(())
            }
            _ => Err(Refused),
        }
    }

    fn set_mode(&mut self, command: u8, mut fields: Fields<'_>) -> Result<(), Refused> {
        let mode = match fields.read()? {
            [0] => Mode::Off,
            [1] => Mode::On,
            _ => return Err(Refused),
        };
        match ctrl::Rx::try_from(command) {
            Ok(ctrl::Rx::Promisc) => self.filter.promiscuous = mode,
            Ok(ctrl::Rx::Allmulti) => self.filter.all_multicast = mode,
            // The others belong to `VIRTIO_NET_F_CTRL_RX_EXTRA`.
            _ => return Err(Refused),
        }
        Ok(())
    }
}

impl Fields<'_> {
    fn read<const LEN: usize>(&mut self) -> Result<[u8; LEN], Refused> {
        let mut bytes = [0; LEN];
        if self.port.read(self.chain, self.offset, &mut bytes) != Ok(LEN) {
            return Err(Refused);
        }
        self.offset += LEN as u64;
        Ok(bytes)
    }

    /// A number of addresses and the addresses.
    fn read_table(&mut self) -> Result<Table, Refused> {
        const ADDRESS_LEN: u64 = 6;
        let count = u32::from_le_bytes(self.read()?);
        let left = self.chain.readable_len().saturating_sub(self.offset);
        let len = u64::from(count) * ADDRESS_LEN;
        if len > left {
            return Err(Refused);
        }
        let end = self.offset + len;
        let mut table = Table::new();
        while self.offset < end && !table.is_full() {
            table.push(self.read()?);
        }
        self.offset = end;
        Ok(table)
    }
}
