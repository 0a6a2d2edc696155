//! Copies between the program's own memory and memory that another party may change meanwhile: a
//! driver, a device, or a client. Not for rings, whose cells are accessed atomically.
//!
//! Each byte is copied by an atomic access. The other party may tear what is copied, so it is
//! checked afterwards, in the copy, and never read from the source again.

use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

#[cfg(any(miri, not(target_arch = "x86_64")))]
use self::bytes as shared;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use self::x86_64 as shared;

/// Copies out of shared memory.
///
/// # Safety
/// `from` must be valid for reads of as many bytes as `to` has, of which no reference of Rust is
/// exclusive and all concurrent accesses are atomic.
#[inline]
pub(crate) unsafe fn copy_out(from: NonNull<u8>, to: &mut [u8]) {
    // SAFETY: the caller vouches for the source, and the target is a slice.
    unsafe { shared::load(from.as_ptr(), to) };
    // The copy is what counts from now on; the source must not be read again in its place.
    compiler_fence(Ordering::Acquire);
}

/// Copies into shared memory.
///
/// # Safety
/// `to` must be valid for writes of as many bytes as `from` has, of which there is no reference of
/// Rust and all concurrent accesses are atomic.
#[inline]
pub(crate) unsafe fn copy_in(to: NonNull<u8>, from: &[u8]) {
    // SAFETY: the caller vouches for the target, and the source is a slice.
    unsafe { shared::store(to.as_ptr(), from) };
}

/// Byte by byte, in the language's own words.
#[cfg(any(miri, not(target_arch = "x86_64")))]
mod bytes {
    use core::sync::atomic::{AtomicU8, Ordering};

    /// # Safety
    /// As for [`copy_out`](super::copy_out).
    pub(super) unsafe fn load(from: *mut u8, to: &mut [u8]) {
        for (at, byte) in to.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the byte.
            *byte = unsafe { AtomicU8::from_ptr(from.wrapping_add(at)) }.load(Ordering::Relaxed);
        }
    }

    /// # Safety
    /// As for [`copy_in`](super::copy_in).
    pub(super) unsafe fn store(to: *mut u8, from: &[u8]) {
        for (at, byte) in from.iter().enumerate() {
            // SAFETY: the caller vouches for the byte.
            unsafe { AtomicU8::from_ptr(to.wrapping_add(at)) }.store(*byte, Ordering::Relaxed);
        }
    }
}

/// The same in the processor's words: to the compiler, assembly is a copy by atomic bytes.
///
/// Source: Intel SDM volume 3, 9.1.1 (accesses that are always atomic) and 9.2.4 (string
/// operations).
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86_64 {
    use core::arch::asm;

    /// Up to so many bytes, moves are shorter than a string operation.
    const FEW: usize = 16;

    /// # Safety
    /// As for [`copy_out`](super::copy_out).
    #[inline]
    pub(super) unsafe fn load(from: *mut u8, to: &mut [u8]) {
        if to.len() > FEW {
            // SAFETY: the caller vouches for the source, and the slice for the target.
            return unsafe { copy(from, to.as_mut_ptr(), to.len()) };
        }
        let mut at = 0;
        let (words, rest) = to.as_chunks_mut::<8>();
        for word in words {
            let value: u64;
            // SAFETY: the caller vouches for the source.
            unsafe {
                asm!("mov {}, [{}]", out(reg) value, in(reg) from.wrapping_add(at),
                    options(nostack, preserves_flags, readonly));
            }
            *word = value.to_ne_bytes();
            at += 8;
        }
        let (words, rest) = rest.as_chunks_mut::<4>();
        for word in words {
            let value: u32;
            // SAFETY: as above.
            unsafe {
                asm!("mov {:e}, [{}]", out(reg) value, in(reg) from.wrapping_add(at),
                    options(nostack, preserves_flags, readonly));
            }
            *word = value.to_ne_bytes();
            at += 4;
        }
        for byte in rest {
            // SAFETY: as above.
            unsafe {
                asm!("mov {}, [{}]", out(reg_byte) *byte, in(reg) from.wrapping_add(at),
                    options(nostack, preserves_flags, readonly));
            }
            at += 1;
        }
    }

    /// # Safety
    /// As for [`copy_in`](super::copy_in).
    #[inline]
    pub(super) unsafe fn store(to: *mut u8, from: &[u8]) {
        if from.len() > FEW {
            // SAFETY: the caller vouches for the target, and the slice for the source.
            return unsafe { copy(from.as_ptr(), to, from.len()) };
        }
        let mut at = 0;
        let (words, rest) = from.as_chunks::<8>();
        for word in words {
            // SAFETY: the caller vouches for the target.
            unsafe {
                asm!("mov [{}], {}", in(reg) to.wrapping_add(at), in(reg) u64::from_ne_bytes(*word),
                    options(nostack, preserves_flags));
            }
            at += 8;
        }
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            // SAFETY: as above.
            unsafe {
                asm!("mov [{}], {:e}", in(reg) to.wrapping_add(at), in(reg) u32::from_ne_bytes(*word),
                    options(nostack, preserves_flags));
            }
            at += 4;
        }
        for byte in rest {
            // SAFETY: as above.
            unsafe {
                asm!("mov [{}], {}", in(reg) to.wrapping_add(at), in(reg_byte) *byte,
                    options(nostack, preserves_flags));
            }
            at += 1;
        }
    }

    /// # Safety
    /// `from` is valid for reads and `to` for writes of `len` bytes.
    #[inline]
    unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: the caller vouches for both; the direction flag is clear.
        unsafe {
            asm!(
                "rep movsq",
                "mov ecx, {rest:e}",
                "rep movsb",
                rest = in(reg) len % 8,
                inout("rcx") len / 8 => _,
                inout("rsi") from => _,
                inout("rdi") to => _,
                options(nostack, preserves_flags),
            );
        }
    }
}
