//! What a server says.

use nbd_client::Export;

use super::line::{READ, Request};

const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const STRUCTURED_REPLY: u32 = 0x668e_33ef;

/// Replies to options.
pub const ACK: u32 = 1;
pub const INFO: u32 = 3;
pub const UNSUPPORTED: u32 = 1 << 31 | 1;

/// Types of chunks.
pub const NONE: u16 = 0;
pub const DATA: u16 = 1;
pub const HOLE: u16 = 2;
pub const ERROR: u16 = 1 << 15 | 1;
pub const ERROR_OFFSET: u16 = 1 << 15 | 2;

/// The most data that come at once, whatever their length is said to be.
const DATA_MAX: usize = 1 << 20;

/// What a server begins with.
pub fn greeting(flags: u16) -> Vec<u8> {
    let mut bytes = b"NBDMAGICIHAVEOPT".to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes
}

pub fn option_reply(option: u32, kind: u32, len: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_REPLY.to_be_bytes().to_vec();
    for word in [option, kind, len] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

/// The data of `NBD_INFO_EXPORT` without its number.
pub fn export(size: u64, flags: u16) -> Vec<u8> {
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes
}

pub fn info(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], data].concat()
}

pub fn block_sizes(sizes: [u32; 3]) -> Vec<u8> {
    sizes.map(u32::to_be_bytes).as_flattened().to_vec()
}

pub fn simple(cookie: u64, error: u32, data: u32) -> Vec<u8> {
    let mut bytes = SIMPLE_REPLY.to_be_bytes().to_vec();
    bytes.extend(error.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.resize(bytes.len() + room(data), 0xab);
    bytes
}

/// A chunk with the fields of its type, and `filler` bytes behind them.
pub fn chunk(flags: u16, kind: u16, cookie: u64, fields: &[u8], filler: u32) -> Vec<u8> {
    let len = (fields.len() as u32).saturating_add(filler);
    let mut bytes = STRUCTURED_REPLY.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(fields);
    bytes.resize(bytes.len() + room(filler), 0xcd);
    bytes
}

fn room(count: u32) -> usize {
    usize::try_from(count).map_or(DATA_MAX, |count| count.min(DATA_MAX))
}

/// What a server by the protocol answers to an option.
pub fn to_option(option: u32, about: Export, structured: bool) -> Vec<u8> {
    match option {
        8 if structured => option_reply(option, ACK, 0, &[]),
        7 => {
            let blocks = about.blocks();
            let about = info(0, &export(about.size(), flags(about)));
            let sizes = block_sizes([blocks.min, blocks.min, blocks.max]);
            let sizes = info(3, &sizes);
            let mut bytes = option_reply(option, INFO, about.len() as u32, &about);
            bytes.extend(option_reply(option, INFO, sizes.len() as u32, &sizes));
            bytes.extend(option_reply(option, ACK, 0, &[]));
            bytes
        }
        1 => export(about.size(), flags(about)),
        _ => option_reply(option, UNSUPPORTED, 0, &[]),
    }
}

/// What it answers to a request.
pub fn to_request(request: Request, structured: bool) -> Vec<u8> {
    let Request { cookie, len, .. } = request;
    if request.command != READ {
        return simple(cookie, 0, 0);
    }
    if structured {
        return chunk(1, DATA, cookie, &request.offset.to_be_bytes(), len);
    }
    simple(cookie, 0, len)
}

fn flags(export: Export) -> u16 {
    let flags = [
        (export.is_read_only(), 1),
        (export.has_flush(), 2),
        (export.has_fua(), 3),
        (export.has_trim(), 5),
        (export.has_write_zeroes(), 6),
    ];
    let flags = flags.into_iter().filter(|(has, _)| *has);
    flags.map(|(_, bit)| 1 << bit).sum::<u16>() | 1
}
