//! One client's socket: whole messages, with the files that come along, and the answers to them.
//!
//! The length that a client claims is checked before anything is done with it, and a message that
//! is refused is taken from the socket as a whole, so that the next one begins where it should. Not
//! the meaning of a message.
//!
//! Source: QEMU, docs/interop/vfio-user.rst, "Header".

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use thiserror::Error;

/// The most data that one message moves in or out of a region.
pub(super) const DATA_MAX: u32 = 4096;

/// The most files that come with one message.
pub(super) const FILES_MAX: usize = 16;

/// The bytes of a header.
const HEADER: usize = 16;

/// The longest body: data with offset, region and length before it, or a version with all its
/// capabilities.
const BODY_MAX: usize = DATA_MAX as usize + 1024;

/// How long a client that has begun a message may take to end it, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bits of the flags that say what kind of message it is, and the kinds.
const TYPE: u32 = 0xf;
const COMMAND: u32 = 0;
const REPLY: u32 = 1;

/// Nobody waits for an answer.
const NO_REPLY: u32 = 1 << 4;

/// The command that is answered has failed.
const ERROR: u32 = 1 << 5;

/// Why a client is not listened to any longer.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The socket failed, or the client stopped in the middle of a message.
    #[error("the client's message does not arrive: {0}")]
    Read(#[source] io::Error),
    /// An answer was not taken.
    #[error("the client does not take its answer: {0}")]
    Write(#[source] io::Error),
    /// A length that no message has: where the next one begins cannot be known.
    #[error("the client claims that a message has {0} bytes")]
    Length(u32),
}

/// A command of the client.
#[derive(Debug)]
pub(super) struct Request {
    /// The number of the command.
    pub(super) command: u16,
    /// What comes after the header.
    pub(super) body: Vec<u8>,
    /// The files that came along.
    pub(super) files: Vec<OwnedFd>,
    id: u16,
    flags: u32,
    /// More files came along than are ever taken.
    too_many_files: bool,
}

impl Request {
    /// Why it cannot be a command at all, whatever its body says.
    pub(super) fn check(&self) -> Result<(), Errno> {
        if self.flags & TYPE != COMMAND || self.too_many_files {
            return Err(Errno::INVAL);
        }
        Ok(())
    }
}

/// The conversation with one client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// The next message; `None` when the client has gone. Waits for its beginning.
    pub(super) fn receive(&mut self) -> Result<Option<Request>, ConnectionError> {
        let mut header = [0; HEADER];
        let mut request = Request {
            command: 0,
            body: Vec::new(),
            files: Vec::new(),
            id: 0,
            flags: 0,
            too_many_files: false,
        };
        let begun = self
            .begin(&mut header, &mut request)
            .map_err(ConnectionError::Read)?;
        if begun == 0 {
            return Ok(None);
        }
        let mut read = |bytes: &mut [u8]| {
            let result = self.stream.read_exact(bytes);
            result.map_err(ConnectionError::Read)
        };
        read(&mut header[begun..])?;
        let [i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, ..] = header;
        request.id = u16::from_ne_bytes([i0, i1]);
        request.command = u16::from_ne_bytes([c0, c1]);
        request.flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let size = u32::from_ne_bytes([s0, s1, s2, s3]);
        let body = usize::try_from(size).ok();
        let body = body.and_then(|size| size.checked_sub(HEADER));
        let Some(body) = body.filter(|&body| body <= BODY_MAX) else {
            self.answer(&request, Err(Errno::MSGSIZE))?;
            return Err(ConnectionError::Length(size));
        };
        request.body.resize(body, 0);
        read(&mut request.body)?;
        Ok(Some(request))
    }

    /// Takes the first bytes of a message, which the files come with. 0 if there is none.
    fn begin(&mut self, header: &mut [u8], request: &mut Request) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut files = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(header)];
        let received = loop {
            match recvmsg(
                &self.stream,
                &mut parts,
                &mut files,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(Errno::INTR) => {}
                // The client's end is closed with a message of ours unread.
                Err(Errno::CONNRESET) => return Ok(0),
                result => break result?,
            }
        };
        for message in files.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                request.files.extend(rights);
            }
        }
        request.too_many_files = received.flags.contains(ReturnFlags::CTRUNC);
        Ok(received.bytes)
    }

    /// Answers `request`, if an answer is waited for. One that failed is answered with the error
    /// alone.
    pub(super) fn answer(
        &mut self,
        request: &Request,
        result: Result<Vec<u8>, Errno>,
    ) -> Result<(), ConnectionError> {
        if request.flags & NO_REPLY != 0 {
            return Ok(());
        }
        let (flags, error, body) = match result {
            Ok(body) => (REPLY, 0, body),
            Err(errno) => (
                REPLY | ERROR,
                errno.raw_os_error().unsigned_abs(),
                Vec::new(),
            ),
        };
        let size = u32::try_from(HEADER + body.len()).expect("a body is short");
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(request.id.to_ne_bytes());
        message.extend(request.command.to_ne_bytes());
        message.extend(size.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(error.to_ne_bytes());
        message.extend(body);
        let written = self.stream.write_all(&message);
        written.map_err(ConnectionError::Write)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
