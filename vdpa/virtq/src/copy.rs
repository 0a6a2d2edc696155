//! Copies between the program's own memory and memory that another party may change meanwhile: a driver,
//! a device, or a client. Not for rings, whose cells are accessed atomically.
//!
//! The other party may tear what is copied, so it is checked afterwards, in the copy, and never read
//! from the source again.

use core::ptr::{self, NonNull};
use core::sync::atomic::{Ordering, compiler_fence};

/// Copies out of shared memory.
///
/// # Safety
/// `from` must be valid for reads of as many bytes as `to` has, which are not memory of Rust.
#[inline]
pub(crate) unsafe fn copy_out(from: NonNull<u8>, to: &mut [u8]) {
    // SAFETY: the caller vouches for the source, and memory of Rust does not overlap it.
    unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
    // The copy is what counts from now on; the source must not be read again in its place.
    compiler_fence(Ordering::Acquire);
}

/// Copies into shared memory.
///
/// # Safety
/// `to` must be valid for writes of as many bytes as `from` has, which are not memory of Rust.
#[inline]
pub(crate) unsafe fn copy_in(to: NonNull<u8>, from: &[u8]) {
    // SAFETY: the caller vouches for the target, and memory of Rust does not overlap it.
    unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) };
}
