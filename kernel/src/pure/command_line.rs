//! The kernel's command line: words separated by blanks, `key=value` or `key` alone.

use alloc::borrow::ToOwned;
use alloc::string::String;

/// The keys that mean something to the kernel.
const KEYS: [&str; 10] = [
    "blk",
    "ifcvf",
    "iommu",
    "ip",
    "ip6",
    "log",
    "net",
    "pci.ecam",
    "vhost.noiommu",
    "virtio_mmio.device",
];

/// The command line that the kernel was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine(String);

impl CommandLine {
    /// The command line `line`.
    pub(crate) fn new(line: &str) -> Self {
        Self(line.to_owned())
    }

    /// The value of `key`: the text behind `key=`. If it is given several times, the last one
    /// counts.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries()
            .filter(|(name, _)| *name == key)
            .last()
            .map(|(_, value)| value)
    }

    /// Whether the word `flag` is there, with or without a value.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.entries().any(|(name, _)| name == flag)
    }

    /// The words that mean nothing to the kernel, nor to an application that has these keys.
    pub fn unknown(&self, keys: &[&str]) -> impl Iterator<Item = &str> {
        let words = self.0.split_ascii_whitespace();
        words.filter(move |word| {
            let key = word.split_once('=').map_or(*word, |(key, _)| key);
            !KEYS.contains(&key) && !keys.contains(&key)
        })
    }

    /// Every key with its value, in order. A word without `=` has an empty value.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .split_ascii_whitespace()
            .map(|word| word.split_once('=').unwrap_or((word, "")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_key() {
        let line = CommandLine::new("  ip=10.0.2.15/24,gw=10.0.2.2   quiet log=info log=debug ");
        assert_eq!(line.get("ip"), Some("10.0.2.15/24,gw=10.0.2.2"));
        assert_eq!(line.get("log"), Some("debug"), "the last one counts");
        assert_eq!(line.get("gw"), None);
        assert!(line.has("quiet"));
        assert!(line.has("ip"));
        assert!(!line.has("qui"));
        assert_eq!(line.entries().count(), 4);
    }

    #[test]
    fn words_without_a_meaning_are_found() {
        let line = CommandLine::new(
            "virtio_mmio.device=4K@1:5 ip=dhcp ipp=dhcp =dhcp net.port=1 quiet ? log admin=",
        );
        let unknown: std::vec::Vec<_> = line.unknown(&["net.port", "admin"]).collect();
        assert_eq!(unknown, ["ipp=dhcp", "=dhcp", "quiet", "?"]);
    }

    #[test]
    fn an_empty_line_has_nothing() {
        let line = CommandLine::default();
        assert_eq!(line.get(""), None);
        assert_eq!(line.entries().next(), None);
    }
}
