//! Numbers of the protocol and the structures that a client sends.

use alloc::vec::Vec;

use super::command::Command;

/// `NBDMAGIC`, the first word of every server.
pub(crate) const INIT: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, the second one of the newstyle.
pub(crate) const NEWSTYLE: u64 = 0x4948_4156_454f_5054;
/// The second one of the oldstyle.
pub(crate) const OLDSTYLE: u64 = 0x0000_4202_8186_1253;
pub(crate) const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
pub(crate) const REQUEST: u32 = 0x2560_9513;
pub(crate) const SIMPLE_REPLY: u32 = 0x6744_6698;
pub(crate) const STRUCTURED_REPLY: u32 = 0x668e_33ef;

/// Handshake flags of both sides.
pub(crate) const FIXED_NEWSTYLE: u16 = 1;
pub(crate) const NO_ZEROES: u16 = 1 << 1;

pub(crate) const OPT_EXPORT_NAME: u32 = 1;
pub(crate) const OPT_GO: u32 = 7;
pub(crate) const OPT_STRUCTURED_REPLY: u32 = 8;

pub(crate) const REP_ACK: u32 = 1;
pub(crate) const REP_INFO: u32 = 3;
/// What says no has this bit.
pub(crate) const REP_ERROR: u32 = 1 << 31;
pub(crate) const REP_ERR_UNSUP: u32 = REP_ERROR | 1;
pub(crate) const REP_ERR_TLS_REQD: u32 = REP_ERROR | 5;
pub(crate) const REP_ERR_UNKNOWN: u32 = REP_ERROR | 6;

pub(crate) const INFO_EXPORT: u16 = 0;
pub(crate) const INFO_BLOCK_SIZE: u16 = 3;

pub(crate) const CMD_DISC: u16 = 2;
/// Force unit access: answered when it is on stable storage.
pub(crate) const CMD_FLAG_FUA: u16 = 1;
/// Zeroes are written, and nothing is given back.
pub(crate) const CMD_FLAG_NO_HOLE: u16 = 1 << 1;

/// The last chunk of an answer.
pub(crate) const REPLY_FLAG_DONE: u16 = 1;
pub(crate) const REPLY_NONE: u16 = 0;
pub(crate) const REPLY_OFFSET_DATA: u16 = 1;
pub(crate) const REPLY_OFFSET_HOLE: u16 = 2;
/// Chunks that say that something went wrong have this bit.
pub(crate) const REPLY_ERROR: u16 = 1 << 15;
pub(crate) const REPLY_ERROR_OFFSET: u16 = REPLY_ERROR | 2;

pub(crate) const EPERM: u32 = 1;
pub(crate) const ENOMEM: u32 = 12;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENOSPC: u32 = 28;
pub(crate) const ENOTSUP: u32 = 95;
pub(crate) const ESHUTDOWN: u32 = 108;

/// The length of a request without its data.
pub(crate) const REQUEST_LEN: usize = 28;

/// A request without its data. `len` is what it is about.
pub(crate) fn request(
    command: u16,
    flags: u16,
    cookie: u64,
    offset: u64,
    len: u32,
) -> [u8; REQUEST_LEN] {
    let mut bytes = [0; REQUEST_LEN];
    bytes[..4].copy_from_slice(&REQUEST.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&command.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// The number of a command.
pub(crate) fn number(command: Command) -> u16 {
    match command {
        Command::Read { .. } => 0,
        Command::Write { .. } => 1,
        Command::Flush => 3,
        Command::Trim { .. } => 4,
        Command::WriteZeroes { .. } => 6,
    }
}

/// An option with its data. It has at most a few thousand bytes.
pub(crate) fn option(out: &mut Vec<u8>, option: u32, data: &[u8]) {
    out.extend(NEWSTYLE.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(len32(data).to_be_bytes());
    out.extend(data);
}

/// The data of `NBD_OPT_GO` for an export, with a question for its block sizes.
pub(crate) fn go(export: &str) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(len32(export.as_bytes()).to_be_bytes());
    data.extend(export.as_bytes());
    data.extend(1u16.to_be_bytes());
    data.extend(INFO_BLOCK_SIZE.to_be_bytes());
    data
}

fn len32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// A field in network order; zero where there is none.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(field(bytes, at))
}

/// The same of 32 bits.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

/// The same of 64 bits.
pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(field(bytes, at))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or([0; N])
}
