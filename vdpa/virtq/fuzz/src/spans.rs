//! What a copy into or out of a chain must come to, worked out byte by byte.

use virtq::Segment;
use virtq::device::Chain;

use super::guest::PAGE;
use super::input::Input;

/// Where in a chain a copy starts.
pub fn offset(input: &mut Input) -> u64 {
    match input.byte() {
        0xf8.. => input.u64(),
        offset => u64::from(offset),
    }
}

/// How many of `len` bytes from `offset` on a part of a chain holds.
pub fn held(total: u64, offset: u64, len: usize) -> usize {
    let left = usize::try_from(total.saturating_sub(offset)).expect("64 bits");
    left.min(len)
}

/// How many translations a copy can need.
pub fn most_pieces(chain: &Chain, len: usize) -> usize {
    let segments = chain.readable().len() + chain.writable().len();
    len / usize::try_from(PAGE).expect("small") + 2 * segments + 2
}

/// The addresses of `len` bytes of some segments from byte `offset` on.
pub fn addresses(segments: &[Segment], offset: u64, len: usize) -> Vec<u64> {
    let mut skip = offset;
    let mut addresses = Vec::new();
    for &Segment {
        addr, len: held, ..
    } in segments
    {
        let held = u64::from(held);
        let from = skip.min(held);
        skip -= from;
        let left = (len - addresses.len()) as u64;
        let to = held.min(from.saturating_add(left));
        addresses.extend((from..to).map(|place| addr.0 + place));
    }
    addresses
}
