//! Looking things up takes no memory, so it can be done where none can be had.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use vdpa::iotlb::{Capacity, Permission};

use crate::{RW, range, table};

thread_local! {
    /// Allocations of this thread; tests run side by side.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_look_up_does_not_allocate() {
    let mappings: Vec<_> = (0..1000)
        .map(|index| (index * 10, index * 10 + 8, RW))
        .collect();
    for capacity in [Capacity::Unlimited, Capacity::Refuse(1000)] {
        let table = table(capacity, &mappings);
        let before = ALLOCATIONS.get();
        for addr in 0..10_000 {
            let _ = black_box(table.translate(black_box(addr), Permission::READ));
        }
        let _ = black_box(table.pieces(range(0, 9999), RW).last());
        let _ = black_box(table.overlaps(range(5, 5000)).count());
        assert_eq!(ALLOCATIONS.get(), before);
        drop(black_box(Box::new(1)));
        assert_eq!(ALLOCATIONS.get(), before + 1, "allocations are counted");
    }
}
