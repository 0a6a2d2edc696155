//! The two system calls that only VDUSE has. A test plays the kernel in their place.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::ffi::{c_int, c_void};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};
use vduse_protocol::ioctl as numbers;

/// The ioctls of VDUSE's files.
pub(crate) trait Calls: fmt::Debug + Send + Sync {
    /// An ioctl that succeeds or fails. The kernel reads the argument, and may change it.
    fn call(&self, file: BorrowedFd<'_>, number: u32, argument: &mut [u8]) -> io::Result<()>;

    /// An ioctl that opens a file.
    fn open(&self, file: BorrowedFd<'_>, number: u32, argument: &mut [u8]) -> io::Result<OwnedFd>;
}

/// Those of Linux.
#[derive(Debug)]
pub(crate) struct Linux;

/// The ioctls whose argument holds nothing but values; all but those that are told of memory.
const PLAIN: [u32; 14] = [
    numbers::GET_API_VERSION,
    numbers::SET_API_VERSION,
    numbers::CREATE_DEV,
    numbers::DESTROY_DEV,
    numbers::GET_FEATURES,
    numbers::SET_FEATURES,
    numbers::DEV_GET_FEATURES,
    numbers::DEV_SET_CONFIG,
    numbers::DEV_INJECT_CONFIG_IRQ,
    numbers::VQ_SETUP,
    numbers::VQ_GET_INFO,
    numbers::VQ_SETUP_KICKFD,
    numbers::VQ_INJECT_IRQ,
    numbers::IOTLB_GET_INFO,
];

/// Those that open a file.
const OPENING: [u32; 3] = [
    numbers::IOTLB_GET_FD,
    numbers::IOTLB_GET_FD2,
    numbers::IOTLB_GET_FD2_LONG,
];

impl Calls for Linux {
    fn call(&self, file: BorrowedFd<'_>, number: u32, argument: &mut [u8]) -> io::Result<()> {
        checked(&PLAIN, file, number, argument).map(drop)
    }

    #[expect(unsafe_code, reason = "the kernel returns a number that is a file")]
    fn open(&self, file: BorrowedFd<'_>, number: u32, argument: &mut [u8]) -> io::Result<OwnedFd> {
        let fd = checked(&OPENING, file, number, argument)?;
        // SAFETY: the ioctl has succeeded, and then returns a descriptor that is the caller's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// An ioctl among `known`, with an argument that is long enough for it.
fn checked(
    known: &[u32],
    file: BorrowedFd<'_>,
    number: u32,
    argument: &mut [u8],
) -> io::Result<c_int> {
    // The size of what the argument points to is in bits 16 to 29.
    let size = (number >> 16 & 0x3fff) as usize;
    if !known.contains(&number) || argument.len() < size {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    #[expect(unsafe_code, reason = "the kernel reads and writes the argument")]
    // SAFETY: the ioctl is one of VDUSE's, on files that only this crate opens. The kernel reads
    // and writes as many bytes as the number says, which are there; what follows them in the
    // argument of two ioctls has its length among them, which the protocol's crate has encoded.
    // Nothing in the argument is an address.
    let result = unsafe { ioctl(file.as_fd(), Bytes { number, argument }) };
    Ok(result?)
}

/// An ioctl with bytes for an argument.
struct Bytes<'a> {
    number: u32,
    argument: &'a mut [u8],
}

#[expect(
    unsafe_code,
    reason = "rustix takes the caller's word for what an ioctl does"
)]
// SAFETY: the pointer is that of bytes that are borrowed, of which there are as many as the number
// says.
unsafe impl Ioctl for Bytes<'_> {
    type Output = c_int;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.number
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<c_int> {
        Ok(out)
    }
}
