//! The kinds of units that there are.

/// What kind of unit it is.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub scalable: bool,
    /// It remembers that something was not present.
    pub caching: bool,
    /// Tables of 3, 4 and 5 levels.
    pub sagaw: u64,
    pub address_bits: u64,
    /// Bit 0 for pages of 2 MiB, bit 1 for 1 GiB.
    pub large_pages: u64,
    pub records: u64,
    /// The most pages of one invalidation, as a power of two.
    pub most_pages: Option<u64>,
    pub snoops: bool,
    pub buffers_writes: bool,
    pub remaps: bool,
    /// There are 2^(4 + 2 * n) domains.
    pub domains: u64,
    /// Firmware has left everything on.
    pub left_on: bool,
    /// It protects ranges of memory.
    pub protects: bool,
}

pub const LEGACY: Config = Config {
    scalable: false,
    caching: false,
    sagaw: 0b0110,
    address_bits: 48,
    large_pages: 0b11,
    records: 4,
    most_pages: Some(9),
    snoops: true,
    buffers_writes: false,
    remaps: true,
    domains: 2,
    left_on: false,
    protects: false,
};

/// Units of every kind.
pub fn every_kind() -> Vec<Config> {
    let scalable = Config {
        scalable: true,
        ..LEGACY
    };
    vec![
        LEGACY,
        scalable,
        Config {
            caching: true,
            most_pages: None,
            ..LEGACY
        },
        Config {
            caching: true,
            snoops: false,
            ..scalable
        },
        Config {
            sagaw: 0b0010,
            address_bits: 39,
            large_pages: 0,
            records: 1,
            ..LEGACY
        },
        Config {
            sagaw: 0b1110,
            address_bits: 57,
            buffers_writes: true,
            left_on: true,
            protects: true,
            ..LEGACY
        },
    ]
}
