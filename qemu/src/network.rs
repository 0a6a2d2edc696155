//! The network that a user asks for with `--net`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::path::DataPath;

/// A network, and the way its card goes inside the guest: two words with a comma between, or one of
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetChoice {
    /// What the card is connected to.
    pub network: Network,
    /// Who drives it.
    pub path: DataPath,
}

/// What the network card is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// `user`: QEMU's own network, with a port of the host forwarded.
    #[default]
    User,
    /// `none`: no network card.
    None,
    /// `tap=IFNAME`: a tap interface of the host.
    Tap(String),
}

/// Why a text names no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NetChoiceError {
    /// None of the known kinds.
    #[error(
        "not a network: write user, none or tap=INTERFACE, and virtio or vhost behind a comma, such as user,vhost"
    )]
    Unknown,
    /// Not a name Linux gives an interface.
    #[error("not the name of a network interface: 1 to 15 characters, without space and `/`")]
    InterfaceName,
    /// There is no card that could go any way.
    #[error("without a network there is no card: write none alone")]
    NoCard,
}

impl FromStr for NetChoice {
    type Err = NetChoiceError;

    fn from_str(text: &str) -> Result<Self, NetChoiceError> {
        let path = |word| match word {
            "virtio" => Some(DataPath::Virtio),
            "vhost" => Some(DataPath::Vhost),
            _ => None,
        };
        if let Some(path) = path(text) {
            let network = Network::default();
            return Ok(Self { network, path });
        }
        // The name of an interface may have commas too.
        let last = text.rsplit_once(',').map(|(rest, word)| (word, rest));
        let found = [text.split_once(','), last].into_iter().flatten();
        let found = found.filter_map(|(word, rest)| Some((path(word)?, rest)));
        match found.into_iter().next() {
            Some((path, rest)) => match rest.parse()? {
                Network::None => Err(NetChoiceError::NoCard),
                network => Ok(Self { network, path }),
            },
            None => Ok(Self {
                network: text.parse()?,
                path: DataPath::default(),
            }),
        }
    }
}

impl FromStr for Network {
    type Err = NetChoiceError;

    fn from_str(text: &str) -> Result<Self, NetChoiceError> {
        match text.split_once('=') {
            None if text == "user" => Ok(Self::User),
            None if text == "none" => Ok(Self::None),
            Some(("tap", interface)) => {
                let fits = (1..=15).contains(&interface.len());
                let clean = |c: char| c.is_ascii_graphic() && c != '/';
                if fits && interface.chars().all(clean) {
                    Ok(Self::Tap(interface.into()))
                } else {
                    Err(NetChoiceError::InterfaceName)
                }
            }
            _ => Err(NetChoiceError::Unknown),
        }
    }
}

impl fmt::Display for NetChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.network {
            Network::User => f.write_str("user")?,
            Network::None => f.write_str("none")?,
            Network::Tap(interface) => write!(f, "tap={interface}")?,
        }
        match self.path {
            DataPath::Virtio => Ok(()),
            DataPath::Vhost => write!(f, ",{}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(network: Network, path: DataPath) -> Result<NetChoice, NetChoiceError> {
        Ok(NetChoice { network, path })
    }

    #[test]
    fn networks_are_read_by_name() {
        let virtio = |network| choice(network, DataPath::Virtio);
        assert_eq!("user".parse(), virtio(Network::User));
        assert_eq!("none".parse(), virtio(Network::None));
        assert_eq!("tap=tap0".parse(), virtio(Network::Tap("tap0".into())));
        assert_eq!("tap=a,b".parse(), virtio(Network::Tap("a,b".into())));
    }

    #[test]
    fn the_way_of_the_card_stands_before_or_behind_the_network() {
        let tap = || Network::Tap("tap0".into());
        for (text, network, path) in [
            ("vhost", Network::User, DataPath::Vhost),
            ("virtio", Network::User, DataPath::Virtio),
            ("user,vhost", Network::User, DataPath::Vhost),
            ("vhost,user", Network::User, DataPath::Vhost),
            ("user,virtio", Network::User, DataPath::Virtio),
            ("tap=tap0,vhost", tap(), DataPath::Vhost),
            ("vhost,tap=tap0", tap(), DataPath::Vhost),
        ] {
            assert_eq!(text.parse(), choice(network, path), "{text}");
        }
    }

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        for text in ["user", "none", "tap=tap0", "user,vhost", "tap=tap0,vhost"] {
            assert_eq!(
                text.parse::<NetChoice>().map(|net| net.to_string()),
                Ok(text.into())
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        use NetChoiceError::{InterfaceName, NoCard, Unknown};
        for (text, expected) in [
            ("", Unknown),
            ("bridge", Unknown),
            ("user=1", Unknown),
            ("tap", Unknown),
            ("USER", Unknown),
            ("user,", Unknown),
            ("user,tap=tap0", Unknown),
            ("vhost,vhost", Unknown),
            ("vhost,virtio", Unknown),
            ("user,vhost,vhost", Unknown),
            ("none,vhost", NoCard),
            ("vhost,none", NoCard),
            ("tap=", InterfaceName),
            ("tap=a/b", InterfaceName),
            ("tap=a b", InterfaceName),
            ("tap=sixteencharacter", InterfaceName),
            ("tap=,vhost", InterfaceName),
        ] {
            assert_eq!(text.parse::<NetChoice>(), Err(expected), "{text}");
        }
    }
}
