//! Tables as firmware makes them.

use std::sync::Arc;

use vdpa::Node;
use vdpa::dma::IsolationUnit;

/// A table of this body, with a right length and sum.
pub fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = [&signature[..], &[0; 32], body].concat();
    seal(&mut bytes);
    bytes
}

/// Makes length and sum right.
pub fn seal(bytes: &mut [u8]) {
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[9] = 0;
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[9] = sum.wrapping_neg();
}

/// A structure with its length in the third and fourth byte; the first two are given.
pub fn structure(start: [u8; 2], fields: &[&[u8]]) -> Vec<u8> {
    let fields = fields.concat();
    let length = u16::try_from(4 + fields.len()).unwrap();
    [&start[..], &length.to_le_bytes(), &fields].concat()
}

/// The scope of a device in a DMAR table.
pub fn scope(kind: u8, id: u8, bus: u8, path: &[[u8; 2]]) -> Vec<u8> {
    let length = u8::try_from(6 + 2 * path.len()).unwrap();
    [&[kind, length, 0, 0, id, bus][..], path.as_flattened()].concat()
}

/// The body of a DMAR table before its structures.
pub fn dmar(width: u8, flags: u8, structures: &[Vec<u8>]) -> Vec<u8> {
    let head = [&[width - 1, flags][..], &[0; 10]].concat();
    table(b"DMAR", &[head, structures.concat()].concat())
}

pub fn drhd(flags: u8, segment: u16, base: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let scopes = scopes.concat();
    let (segment, base) = (segment.to_le_bytes(), base.to_le_bytes());
    structure([0, 0], &[&[flags, 0], &segment, &base, &scopes])
}

pub fn rmrr(segment: u16, base: u64, limit: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let scopes = scopes.concat();
    let (segment, base, limit) = (
        segment.to_le_bytes(),
        base.to_le_bytes(),
        limit.to_le_bytes(),
    );
    structure([1, 0], &[&[0; 2], &segment, &base, &limit, &scopes])
}

/// An ATSR (2) or SATC (5).
pub fn ats(kind: u8, flags: u8, segment: u16, scopes: &[Vec<u8>]) -> Vec<u8> {
    let scopes = scopes.concat();
    structure([kind, 0], &[&[flags, 0], &segment.to_le_bytes(), &scopes])
}

pub fn ivrs(structures: &[Vec<u8>]) -> Vec<u8> {
    let head = [&(48_u32 << 8 | 64 << 15).to_le_bytes()[..], &[0; 8]].concat();
    table(b"IVRS", &[head, structures.concat()].concat())
}

/// What names an IOMMU in an IVRS table.
#[derive(Clone, Copy, Debug)]
pub struct Where {
    pub device: u16,
    pub segment: u16,
    pub base: u64,
}

pub fn ivhd(kind: u8, flags: u8, place: Where, entries: &[Vec<u8>]) -> Vec<u8> {
    let entries = entries.concat();
    let features = [0x2229_4ada_u64.to_le_bytes(), 0x1_u64.to_le_bytes()].concat();
    structure(
        [kind, flags],
        &[
            &place.device.to_le_bytes(),
            &0x40_u16.to_le_bytes(),
            &place.base.to_le_bytes(),
            &place.segment.to_le_bytes(),
            &0_u16.to_le_bytes(),
            &0x0004_8000_u32.to_le_bytes(),
            if kind == 0x10 { &[] } else { &features },
            &entries,
        ],
    )
}

/// An entry of four bytes.
pub fn short(kind: u8, device: u16, settings: u8) -> Vec<u8> {
    let [low, high] = device.to_le_bytes();
    vec![kind, low, high, settings]
}

/// An entry of eight bytes.
pub fn long(kind: u8, device: u16, settings: u8, rest: [u8; 4]) -> Vec<u8> {
    [&short(kind, device, settings)[..], &rest].concat()
}

pub fn ivmd(kind: u8, flags: u8, devices: [u16; 2], start: u64, length: u64) -> Vec<u8> {
    let [first, last] = devices.map(u16::to_le_bytes);
    let (start, length) = (start.to_le_bytes(), length.to_le_bytes());
    structure([kind, flags], &[&first, &last, &[0; 8], &start, &length])
}

pub fn viot(nodes: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(nodes.len()).unwrap();
    let head = [&count.to_le_bytes()[..], &48_u16.to_le_bytes(), &[0; 8]].concat();
    table(b"VIOT", &[head, nodes.concat()].concat())
}

pub fn pci_range(endpoint: u32, segments: [u16; 2], functions: [u16; 2], output: u16) -> Vec<u8> {
    structure(
        [1, 0],
        &[
            &endpoint.to_le_bytes(),
            segments.map(u16::to_le_bytes).as_flattened(),
            functions.map(u16::to_le_bytes).as_flattened(),
            &output.to_le_bytes(),
            &[0; 6],
        ],
    )
}

pub fn mmio_endpoint(endpoint: u32, base: u64, output: u16) -> Vec<u8> {
    let (endpoint, base) = (endpoint.to_le_bytes(), base.to_le_bytes());
    structure([2, 0], &[&endpoint, &base, &output.to_le_bytes(), &[0; 6]])
}

pub fn viot_pci(segment: u16, function: u16) -> Vec<u8> {
    let (segment, function) = (segment.to_le_bytes(), function.to_le_bytes());
    structure([3, 0], &[&segment, &function, &[0; 8]])
}

pub fn viot_mmio(base: u64) -> Vec<u8> {
    structure([4, 0], &[&[0; 4], &base.to_le_bytes()])
}

/// A function below these bridges.
pub fn unit(id: u32, bridges: &[u32]) -> Arc<IsolationUnit> {
    IsolationUnit::of_requesters(&Node::root("function"), vec![id], bridges.to_vec())
}

/// Bytes from a dump.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    digits
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[high, low]| value(*high) << 4 | value(*low))
        .collect()
}
