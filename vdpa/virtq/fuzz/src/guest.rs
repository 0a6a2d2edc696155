//! The memory of a hostile driver: two regions, reached directly or through small pages with
//! permissions.
//!
//! It watches the device side: where it may write, how often it asks for a translation, and that it
//! tells the dirty log of everything. In the middle of an operation the driver may strike from
//! another processor, as far as one thread can play that: an ambush waits for the device side's
//! next translations.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use virtq::device::{
    Access, Direct, DirtyLog, Fault, Memory, Piece, Region, Translate, Translated, Translation,
};
use virtq::{DmaAddr, Segment};

/// Where the regions start. The second ends with the last byte of the address space.
pub const LOW: u64 = 0x10_0000;
pub const HIGH: u64 = u64::MAX - (LEN - 1);
/// The length of each region.
pub const LEN: u64 = 0x1000;
/// The length of a page.
pub const PAGE: u64 = 64;

const PAGES: usize = (2 * LEN / PAGE) as usize;
/// Without translation the second region is aligned for the driver and not on the host.
const SKEW: u64 = 4;

pub(super) struct Guest {
    ram: Ram,
    /// What the memory must hold: what the driver has written, and what the log was told of.
    expected: RefCell<Vec<u8>>,
    paged: bool,
    permissions: [Cell<u8>; PAGES],
    generation: Cell<u64>,
    /// Where the device side may write now.
    writable: RefCell<Vec<Segment>>,
    translations: Cell<usize>,
    logged: Cell<usize>,
    ambushes: RefCell<Vec<Ambush>>,
    struck: Cell<bool>,
}

/// A write of the driver after so many translations.
struct Ambush {
    countdown: u8,
    addr: u64,
    bytes: Vec<u8>,
}

impl Guest {
    pub fn new(paged: bool) -> Self {
        let ram = Ram::new();
        Self {
            expected: RefCell::new(ram.bytes()),
            ram,
            paged,
            permissions: [const { Cell::new(3) }; PAGES],
            generation: Cell::new(0),
            writable: RefCell::default(),
            translations: Cell::new(0),
            logged: Cell::new(0),
            ambushes: RefCell::default(),
            struck: Cell::new(false),
        }
    }

    /// Writes as the driver; outside its regions there is nothing.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        for (offset, &byte) in (0..).zip(bytes) {
            if let Some(place) = self.place(addr.wrapping_add(offset)) {
                self.ram.write(place, byte);
                self.expected.borrow_mut()[place] = byte;
            }
        }
    }

    /// Reads as the driver.
    pub fn byte(&self, addr: u64) -> u8 {
        self.ram
            .read(self.place(addr).expect("an address of the driver"))
    }

    pub fn read<const N: usize>(&self, addr: u64) -> [u8; N] {
        let mut addresses = addr..;
        [(); N].map(|()| self.byte(addresses.next().expect("no end")))
    }

    /// Lets a page be read (1), written (2), both (3) or neither (0).
    pub fn protect(&self, page: usize, permission: u8) {
        self.permissions[page % PAGES].set(permission & 3);
        self.generation.set(self.generation.get() + 1);
    }

    pub fn lie_in_ambush(&self, countdown: u8, addr: u64, bytes: Vec<u8>) {
        self.ambushes.borrow_mut().push(Ambush {
            countdown,
            addr,
            bytes,
        });
    }

    /// An operation of the device side begins, which may write there and nowhere else.
    pub fn watch(&self, writable: &[Segment]) {
        *self.writable.borrow_mut() = writable.to_vec();
        self.translations.set(0);
        self.logged.set(0);
        self.struck.set(false);
    }

    /// The operation has ended: checks its work, and says how many bytes it has logged.
    pub fn review(&self, most_translations: usize) -> usize {
        let translations = self.translations.get();
        assert!(
            translations <= most_translations,
            "{translations} translations in one operation"
        );
        assert!(
            self.ram.holds(&self.expected.borrow()),
            "something was written and not logged"
        );
        self.logged.get()
    }

    /// Whether the driver has struck during the operation.
    pub fn has_struck(&self) -> bool {
        self.struck.get()
    }

    /// Where a byte of the driver lies in the memory of the host.
    fn place(&self, addr: u64) -> Option<usize> {
        let offset = match (addr.wrapping_sub(LOW), addr.wrapping_sub(HIGH)) {
            (low, _) if low < LEN => low,
            (_, high) if high < LEN => LEN + high,
            _ => return None,
        };
        let place = if self.paged {
            scattered(offset / PAGE) * PAGE + offset % PAGE
        } else if offset < LEN {
            offset
        } else {
            offset + SKEW
        };
        usize::try_from(place).ok()
    }

    fn strike(&self) {
        let mut due = Vec::new();
        self.ambushes.borrow_mut().retain_mut(|ambush| {
            let waits = ambush.countdown > 0;
            ambush.countdown = ambush.countdown.saturating_sub(1);
            if !waits {
                due.push((ambush.addr, std::mem::take(&mut ambush.bytes)));
            }
            waits
        });
        for (addr, bytes) in due {
            self.write(addr, &bytes);
            self.struck.set(true);
        }
    }

    /// The memory as it is found without the watch.
    fn direct(&self) -> Direct {
        let region = |addr: u64, place: u64, len: u64| Region {
            addr: DmaAddr(addr),
            ptr: self.ram.at(usize::try_from(place).expect("small")),
            len: usize::try_from(len).expect("small"),
        };
        let regions = if self.paged {
            vec![region(0, 0, 2 * LEN)]
        } else {
            vec![region(LOW, 0, LEN), region(HIGH, LEN + SKEW, LEN)]
        };
        // SAFETY: the regions lie in the allocation, which outlives what is made here, and nothing
        // refers to it.
        unsafe { Direct::new(regions) }.expect("the regions lie apart")
    }
}

// SAFETY: the pieces are those of `Direct`, whose regions are valid as long as the guest.
unsafe impl Memory for Guest {
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Piece, Fault> {
        assert!(len > 0, "nothing is asked for");
        self.translations.set(self.translations.get() + 1);
        let may_write = |lent: &Segment| covers(lent, addr, len);
        assert!(
            access == Access::Read || self.writable.borrow().iter().any(may_write),
            "the device side is about to write {len} bytes at {addr:#x}"
        );
        self.strike();
        if self.paged {
            Translated::new(self, self.direct()).translate(addr, len, access)
        } else {
            self.direct().translate(addr, len, access)
        }
    }

    fn generation(&self) -> u64 {
        self.generation.get()
    }
}

impl Translate for &Guest {
    fn translate(&self, addr: DmaAddr, len: u32, access: Access) -> Result<Translation, Fault> {
        let place = self.place(addr.0).ok_or(Fault::NoMapping)? as u64;
        let offset = if addr.0 >= HIGH {
            LEN + (addr.0 - HIGH)
        } else {
            addr.0 - LOW
        };
        let page = usize::try_from(offset / PAGE).expect("small");
        let needed = if access == Access::Read { 1 } else { 2 };
        match self.permissions[page].get() {
            0 => return Err(Fault::NoMapping),
            permission if permission & needed == 0 => return Err(Fault::Permission),
            _ => {}
        }
        let left = u32::try_from(PAGE - offset % PAGE).expect("small");
        Ok(Translation {
            addr: DmaAddr(place),
            len: len.min(left),
        })
    }

    fn generation(&self) -> u64 {
        self.generation.get()
    }
}

impl DirtyLog for Guest {
    fn written(&self, addr: DmaAddr, len: u32) {
        let lent = self
            .writable
            .borrow()
            .iter()
            .any(|lent| covers(lent, addr, len));
        assert!(lent, "the device side has written {len} bytes at {addr:#x}");
        self.logged.set(self.logged.get() + len as usize);
        for offset in 0..u64::from(len) {
            let place = self.place(addr.0 + offset).expect("it was translated");
            self.expected.borrow_mut()[place] = self.ram.read(place);
        }
    }
}

/// Whether a range lies inside what was lent. Either may end with the last byte of the address
/// space.
fn covers(lent: &Segment, addr: DmaAddr, len: u32) -> bool {
    let end = |addr: DmaAddr, len: u32| u128::from(addr.0) + u128::from(len);
    lent.addr <= addr && end(addr, len) <= end(lent.addr, lent.len)
}

/// Puts no two pages next to each other on both sides.
fn scattered(page: u64) -> u64 {
    (page * 7 + 3) % PAGES as u64
}

/// Memory that nothing refers to.
struct Ram(NonNull<u8>);

impl Ram {
    const SIZE: usize = (2 * LEN + SKEW) as usize;

    fn layout() -> Layout {
        Layout::from_size_align(Self::SIZE, 4096).expect("a good layout")
    }

    fn new() -> Self {
        // SAFETY: the size is not zero.
        Self(NonNull::new(unsafe { alloc_zeroed(Self::layout()) }).expect("there is memory"))
    }

    fn at(&self, place: usize) -> NonNull<u8> {
        assert!(place < Self::SIZE);
        // SAFETY: the place lies in the allocation.
        unsafe { self.0.add(place) }
    }

    fn write(&self, place: usize, byte: u8) {
        // SAFETY: `at` gives a byte of the allocation.
        unsafe { self.at(place).write(byte) };
    }

    fn read(&self, place: usize) -> u8 {
        // SAFETY: as for `write`; the allocation was zeroed.
        unsafe { self.at(place).read() }
    }

    fn bytes(&self) -> Vec<u8> {
        (0..Self::SIZE).map(|place| self.read(place)).collect()
    }

    fn holds(&self, expected: &[u8]) -> bool {
        // SAFETY: nobody writes until the comparison is done, and the allocation is as long.
        let bytes = unsafe { std::slice::from_raw_parts(self.0.as_ptr(), Self::SIZE) };
        bytes == expected
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and dropped once.
        unsafe { dealloc(self.0.as_ptr(), Self::layout()) };
    }
}
