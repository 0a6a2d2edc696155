//! What ends a connection, and what a request ends with.

use super::wire;

/// Why a connection cannot be used any more. Its user closes it, and may connect again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The other side speaks something else.
    #[error("this is no NBD server")]
    NotNbd,
    /// It speaks the oldstyle, which has no exports.
    #[error("the server speaks the oldstyle of the protocol alone")]
    Oldstyle,
    /// There is no such export.
    #[error("the server has no such export")]
    NoExport,
    /// The server wants TLS.
    #[error("the server wants TLS, which there is not here")]
    Tls,
    /// The server refuses the export for another reason: the type of its reply.
    #[error("the server refuses the export (reply {0:#x})")]
    Refused(u32),
    /// A reply to an option makes no sense, is too long, or is one of too many.
    #[error("the server's reply to an option makes no sense")]
    OptionReply,
    /// The block sizes or the size of the export make no sense.
    #[error("the export's sizes make no sense")]
    Sizes,
    /// The export is another one than before.
    #[error("the export has changed: its size, flags or block sizes are others")]
    Changed,
    /// A reply has neither of the magics, or not the one of what was negotiated.
    #[error("the server's reply is none")]
    Reply,
    /// A reply is to no request, or to one that has been answered.
    #[error("the server replies to what nobody has asked")]
    Cookie,
    /// A chunk has a type or a length that it cannot have.
    #[error("a chunk of a reply makes no sense")]
    Chunk,
    /// A chunk lies outside of its request, or there is one there already.
    #[error("a chunk of a reply lies where it does not belong")]
    Outside,
    /// The reply is complete and some bytes are missing.
    #[error("a reply lacks bytes")]
    Incomplete,
    /// The server is about to end.
    #[error("the server is shutting down")]
    Leaving,
    /// The server has not said anything for too long, or has not come to an end.
    #[error("the server has not answered in time")]
    Silent,
    /// The data of a write that is half sent has been taken back.
    #[error("a request was taken back while it was being sent")]
    TakenBack,
}

/// What a request ends with if it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It could not be done, or nobody knows whether it was.
    #[error("the server has an error")]
    Io,
    /// The export may not be written, or not by us.
    #[error("the server does not permit it")]
    Permission,
    /// The request makes no sense to the server.
    #[error("the server finds the request invalid")]
    Invalid,
    /// There is no room.
    #[error("the server has no room")]
    NoSpace,
    /// The server does not have it.
    #[error("the server does not support it")]
    Unsupported,
}

impl RequestError {
    /// What a server's number means; `None`, if it is no error. Unknown ones are `EINVAL`, as the
    /// protocol has it.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => return None,
            wire::EPERM => Self::Permission,
            wire::ENOSPC => Self::NoSpace,
            wire::ENOTSUP => Self::Unsupported,
            wire::EINVAL => Self::Invalid,
            5 | wire::ENOMEM => Self::Io,
            _ => Self::Invalid,
        })
    }
}
