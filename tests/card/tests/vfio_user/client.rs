//! A client that sends what it likes, byte by byte.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::program::{PATIENCE, Program};

pub const VERSION: u16 = 1;
pub const DMA_MAP: u16 = 2;
pub const DMA_UNMAP: u16 = 3;
pub const DEVICE_INFO: u16 = 4;
pub const REGION_INFO: u16 = 5;
pub const IRQ_INFO: u16 = 7;
pub const SET_IRQS: u16 = 8;
pub const REGION_READ: u16 = 9;
pub const REGION_WRITE: u16 = 10;
pub const RESET: u16 = 13;

pub const CONFIG: u32 = 7;
pub const MSIX: u32 = 2;

/// Flags of a header.
pub const NO_REPLY: u32 = 0x10;
const REPLY: u32 = 1;
const ERROR: u32 = 0x20;

pub struct Client {
    stream: UnixStream,
    next: u16,
}

/// The bytes of numbers one after the other.
macro_rules! body {
    ($($number:expr),* $(,)?) => { [$(&$number.to_ne_bytes()[..]),*].concat() };
}
pub(crate) use body;

impl Client {
    /// Connects without a word.
    pub fn connect(program: &Program) -> Self {
        Self::connect_to(&program.socket())
    }

    /// The same to any socket.
    pub fn connect_to(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, next: 40 }
    }

    /// Connects and agrees on a version.
    pub fn agreed(program: &Program) -> Self {
        let mut client = Self::connect(program);
        client.agree();
        client
    }

    pub fn agree(&mut self) {
        let data = b"{\"capabilities\":{\"max_msg_fds\":8,\"unheard_of\":[]}}\0";
        let version = self.call(VERSION, &[&body!(0_u16, 1_u16), &data[..]].concat());
        let version = version.unwrap();
        assert_eq!(version[..4], body!(0_u16, 0_u16));
        let text = str::from_utf8(&version[4..]).unwrap();
        assert_eq!(text, "{\"capabilities\":{\"max_msg_fds\":16}}\0");
    }

    /// Sends a command, and returns the body of the answer.
    pub fn call(&mut self, command: u16, body: &[u8]) -> Result<Vec<u8>, Errno> {
        self.call_with(command, body, &[])
    }

    /// The same with files.
    pub fn call_with(
        &mut self,
        command: u16,
        body: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, Errno> {
        self.send(command, 0, body, files);
        self.answer(command)
    }

    /// Sends a command, and waits for nothing.
    pub fn send(&mut self, command: u16, flags: u32, body: &[u8], files: &[BorrowedFd<'_>]) {
        let size = u32::try_from(16 + body.len()).unwrap();
        self.next += 1;
        let header = body!(self.next, command, size, flags, 0_u32);
        self.send_bytes(&[&header, body].concat(), files);
    }

    /// Sends anything.
    pub fn send_bytes(&mut self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let parts = [IoSlice::new(bytes)];
        let sent = sendmsg(&self.stream, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
        self.stream.write_all(&bytes[sent..]).unwrap();
    }

    /// The answer to the command that was sent last.
    pub fn answer(&mut self, command: u16) -> Result<Vec<u8>, Errno> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).unwrap();
        let word = |at: usize| u32::from_ne_bytes(header[at..][..4].try_into().unwrap());
        assert_eq!(header[..4], body!(self.next, command));
        let mut body = vec![0; usize::try_from(word(4)).unwrap() - 16];
        self.stream.read_exact(&mut body).unwrap();
        match word(8) {
            REPLY => Ok(body),
            flags => {
                assert_eq!((flags, body.len()), (REPLY | ERROR, 0));
                Err(Errno::from_raw_os_error(word(12).cast_signed()))
            }
        }
    }

    /// Whether the server has closed its end.
    pub fn is_closed(&mut self) -> bool {
        self.stream.read(&mut [0]).is_ok_and(|len| len == 0)
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        let access = body!(offset, region, count);
        let answer = self.call(REGION_READ, &access)?;
        assert_eq!(answer[..16], access);
        Ok(answer[16..].into())
    }

    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let count = u32::try_from(data.len()).unwrap();
        let access = body!(offset, region, count);
        let answer = self.call(REGION_WRITE, &[&access, data].concat())?;
        assert_eq!(answer, access);
        Ok(())
    }

    pub fn map(
        &mut self,
        file: Option<BorrowedFd<'_>>,
        address: u64,
        size: u64,
    ) -> Result<(), Errno> {
        let body = body!(32_u32, 3_u32, 0_u64, address, size);
        let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
        self.call_with(DMA_MAP, &body, &files)
            .map(|answer| assert!(answer.is_empty()))
    }

    pub fn unmap(&mut self, address: u64, size: u64) -> Result<(), Errno> {
        let body = body!(24_u32, 0_u32, address, size);
        let answer = self.call(DMA_UNMAP, &body)?;
        assert_eq!(answer, body);
        Ok(())
    }

    /// Arms the vectors from 0 on with these counters.
    pub fn arm(&mut self, counters: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let count = u32::try_from(counters.len()).unwrap();
        let body = body!(20_u32, 0x24_u32, MSIX, 0_u32, count);
        self.call_with(SET_IRQS, &body, counters)
            .map(|answer| assert!(answer.is_empty()))
    }
}
