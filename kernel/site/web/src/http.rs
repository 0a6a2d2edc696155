//! HTTP/1.1 as it stands on the wire (RFC 9112): where a request ends, what it says, and how an
//! answer begins.
//!
//! Everything here is a state machine over bytes that somebody else reads and writes. It is strict
//! where two readers of one connection could disagree about the end of a request (RFC 9112, 11.2):
//! such a request is refused and its connection closed, never repaired. `picoserve` leaves such
//! requests to its user and takes `Content-Length` without question; the crate `httparse` reads the
//! field lines, and what is around them is here.
//!
//! | part | what it does |
//! |---|---|
//! | [`Reader`](reader::Reader) | finds the end of a request in a buffer of fixed size |
//! | [`Head`](head::Head) | the request line and the fields |
//! | [`Framing`](framing::Framing) | how long the body is |
//! | [`Decoder`](body::Decoder) | the bytes of the body |
//! | [`response`] | status line and fields of an answer |

pub mod body;
mod fields;
pub mod framing;
pub mod head;
pub mod reader;
pub mod refusal;
pub mod response;
pub mod target;
pub mod version;

#[cfg(test)]
mod requests_tests;
