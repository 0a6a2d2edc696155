//! Where the linker script put the parts of the kernel's image.

use core::ops::Range;

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __data_start: u8;
}

/// A range of addresses of the image. They are physical addresses too.
pub type Section = Range<u64>;

/// The whole image, from page border to page border.
#[must_use]
pub fn image() -> Section {
    address(&raw const __image_start)..address(&raw const __image_end)
}

/// The code. It begins at a page border; what lies between its end and the next border is unused.
#[must_use]
pub fn text() -> Section {
    address(&raw const __text_start)..address(&raw const __text_end)
}

/// The constants, from page border to page border. Everything behind them is writable data.
#[must_use]
pub fn rodata() -> Section {
    address(&raw const __rodata_start)..address(&raw const __data_start)
}

fn address(symbol: *const u8) -> u64 {
    symbol.expose_provenance() as u64
}
