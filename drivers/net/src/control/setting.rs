//! What a card can be told, and how it is put into a command (VIRTIO 1.2, 5.1.6.5.1 and 5.1.6.5.2).

use vdpa::{Features, MacAddress};
use virtio::net::{Ctrl, F, ctrl};

/// The features of the control queue that the driver can use.
pub(crate) const CONTROL_FEATURES: F = F::CTRL_VQ.union(F::CTRL_MAC_ADDR).union(F::CTRL_RX);

/// Whether there is a control queue, and something to tell the card through it.
pub(crate) fn is_usable(features: Features) -> bool {
    let commands = features.intersection((F::CTRL_MAC_ADDR | F::CTRL_RX).into());
    features.contains(F::CTRL_VQ) && commands != Features::EMPTY
}

/// Whether a receive mode is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// The frames in question are taken.
    On,
    /// They are not, unless another rule lets them pass.
    Off,
}

/// One thing that a card can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Mac(MacAddress),
    Promiscuous(Switch),
    AllMulticast(Switch),
}

impl Setting {
    /// The longest command without its answer.
    pub(super) const ENCODED_MAX: usize = 8;

    /// The feature without which the card does not know it.
    pub(super) fn feature(self) -> F {
        match self {
            Self::Mac(_) => F::CTRL_MAC_ADDR,
            Self::Promiscuous(_) | Self::AllMulticast(_) => F::CTRL_RX,
        }
    }

    /// Class, command and data in `bytes`; returns how many they are.
    pub(super) fn encode(self, bytes: &mut [u8; Self::ENCODED_MAX]) -> usize {
        let (class, command) = match self {
            Self::Mac(_) => (Ctrl::Mac, ctrl::Mac::AddrSet.into()),
            Self::Promiscuous(_) => (Ctrl::Rx, ctrl::Rx::Promisc.into()),
            Self::AllMulticast(_) => (Ctrl::Rx, ctrl::Rx::Allmulti.into()),
        };
        [bytes[0], bytes[1]] = [class.into(), command];
        match self {
            Self::Mac(MacAddress(address)) => {
                bytes[2..].copy_from_slice(&address);
                8
            }
            Self::Promiscuous(switch) | Self::AllMulticast(switch) => {
                bytes[2] = u8::from(switch == Switch::On);
                3
            }
        }
    }
}

/// What the application has told the card. The rest is as the card likes it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    pub(super) mac: Option<MacAddress>,
    pub(super) promiscuous: Option<Switch>,
    pub(super) all_multicast: Option<Switch>,
}

impl Settings {
    /// How each of them is found, to be told again.
    pub(super) const EACH: [fn(&Self) -> Option<Setting>; 3] = [
        |settings| settings.mac.map(Setting::Mac),
        |settings| settings.promiscuous.map(Setting::Promiscuous),
        |settings| settings.all_multicast.map(Setting::AllMulticast),
    ];

    /// The card has accepted it.
    pub(super) fn remember(&mut self, setting: Setting) {
        match setting {
            Setting::Mac(mac) => self.mac = Some(mac),
            Setting::Promiscuous(switch) => self.promiscuous = Some(switch),
            Setting::AllMulticast(switch) => self.all_multicast = Some(switch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_laid_out_as_specified() {
        let mac = MacAddress([2, 3, 4, 5, 6, 7]);
        let cases = [
            (Setting::Mac(mac), &[1, 1, 2, 3, 4, 5, 6, 7][..]),
            (Setting::Promiscuous(Switch::On), &[0, 0, 1]),
            (Setting::Promiscuous(Switch::Off), &[0, 0, 0]),
            (Setting::AllMulticast(Switch::On), &[0, 1, 1]),
        ];
        for (setting, expected) in cases {
            let mut bytes = [0xff; Setting::ENCODED_MAX];
            let len = setting.encode(&mut bytes);
            assert_eq!(&bytes[..len], expected);
        }
    }

    #[test]
    fn a_queue_without_commands_is_of_no_use() {
        assert!(!is_usable(F::CTRL_VQ.into()));
        assert!(!is_usable(F::CTRL_RX.into()));
        assert!(is_usable((F::CTRL_VQ | F::CTRL_RX).into()));
        assert!(is_usable((F::CTRL_VQ | F::CTRL_MAC_ADDR).into()));
    }
}
