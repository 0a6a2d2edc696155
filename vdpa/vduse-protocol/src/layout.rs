//! How the structures of `linux/vduse.h` lie in memory. What is encoded and decoded takes its
//! places from here, and the places are compared with those of the header at compile time.

use core::mem::offset_of;

/// Structures with their sizes, and the offsets of their fields.
macro_rules! layouts {
    ($($name:ident: $size:literal { $($field:ident: $type:ty = $at:literal,)* })*) => {$(
        #[repr(C)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }
        const _: () = assert!(size_of::<$name>() == $size);
        $(const _: () = assert!(offset_of!($name, $field) == $at);)*
    )*};
}

/// The place of a field.
macro_rules! at {
    ($name:ident.$field:ident) => {
        core::mem::offset_of!(crate::layout::$name, $field)
    };
}
pub(crate) use at;

layouts! {
    // Without the configuration space, which follows.
    DevConfig: 336 {
        name: [u8; 256] = 0,
        vendor_id: u32 = 256,
        device_id: u32 = 260,
        features: u64 = 264,
        vq_num: u32 = 272,
        vq_align: u32 = 276,
        // Reserved in version 0.
        ngroups: u32 = 280,
        nas: u32 = 284,
        reserved: [u32; 11] = 288,
        config_size: u32 = 332,
    }
    Entry: 32 {
        offset: u64 = 0,
        start: u64 = 8,
        last: u64 = 16,
        perm: u8 = 24,
    }
    EntryV2: 80 {
        offset: u64 = 0,
        start: u64 = 8,
        last: u64 = 16,
        perm: u8 = 24,
        padding: [u8; 7] = 25,
        asid: u32 = 32,
        reserved: [u32; 11] = 36,
    }
    // As in Linux 7.0: the first entry within.
    EntryV2Long: 88 {
        v1: Entry = 0,
        asid: u32 = 32,
        reserved: [u32; 12] = 36,
    }
    // Without the bytes, which follow.
    ConfigData: 8 {
        offset: u32 = 0,
        length: u32 = 4,
    }
    VqConfig: 32 {
        index: u32 = 0,
        max_size: u16 = 4,
        reserved1: u16 = 6,
        // Reserved in version 0.
        group: u32 = 8,
        reserved2: [u16; 10] = 12,
    }
    VqInfo: 48 {
        index: u32 = 0,
        num: u32 = 4,
        desc_addr: u64 = 8,
        driver_addr: u64 = 16,
        device_addr: u64 = 24,
        state: [u16; 4] = 32,
        ready: u8 = 40,
    }
    VqEventfd: 8 {
        index: u32 = 0,
        fd: i32 = 4,
    }
    IovaUmem: 48 {
        uaddr: u64 = 0,
        iova: u64 = 8,
        size: u64 = 16,
        // Reserved in version 0.
        asid: u32 = 24,
        reserved: [u32; 5] = 28,
    }
    IovaInfoLayout: 48 {
        start: u64 = 0,
        last: u64 = 8,
        capability: u64 = 16,
        // Reserved in version 0.
        asid: u32 = 24,
        reserved: [u32; 5] = 28,
    }
    VqState: 12 {
        index: u32 = 0,
        state: [u16; 4] = 4,
    }
    IovaRangeV2: 24 {
        start: u64 = 0,
        last: u64 = 8,
        // Not in version 0.
        asid: u32 = 16,
        padding: u32 = 20,
    }
    // A group and its address space, or a queue and whether it is ready.
    Pair: 8 {
        first: u32 = 0,
        second: u32 = 4,
    }
    DevRequest: 152 {
        kind: u32 = 0,
        request_id: u32 = 4,
        reserved: [u32; 4] = 8,
        payload: [u64; 16] = 24,
    }
    DevResponse: 152 {
        request_id: u32 = 0,
        result: u32 = 4,
        reserved: [u32; 4] = 8,
        payload: [u32; 32] = 24,
    }
}
