//! The translation cache of a queue: what it finds, what it forgets when, and how long it keeps
//! memory.

use std::cell::Cell;
use std::sync::Arc;

use crate::table::{Table, mapped, whole};
use virtq::device::{Access, DeviceTlb, Fault, Lookup, Mapped, Memory, Piece};
use virtq::testing::HeapDma;
use virtq::{Arena, DeviceMemory, DmaAddr, DmaAllocator, DmaBuffer, SharedMemory};

/// Where the first mapping starts, for the device.
const IOVA: u64 = 0x40_0000;
const PAGE: u64 = 4096;

struct Setup {
    heap: Arc<HeapDma>,
    table: Arc<Table>,
    tlb: DeviceTlb<Arc<Table>>,
}

impl Setup {
    fn new() -> Self {
        let table = Arc::new(Table::default());
        Self {
            heap: HeapDma::new(),
            tlb: DeviceTlb::new(Arc::clone(&table)),
            table,
        }
    }

    fn memory(&self, len: u64) -> SharedMemory {
        let dma = Arc::clone(&self.heap) as Arc<dyn DmaAllocator>;
        SharedMemory::new(&dma, len.try_into().unwrap()).unwrap()
    }

    /// Maps a page of its own at each of so many addresses, a page apart.
    fn map_pages(&self, count: u64) {
        for page in 0..count {
            let memory = self.memory(PAGE);
            memory.write(0, &page.to_le_bytes()).unwrap();
            self.table.map(mapped(IOVA + 2 * PAGE * page, &memory));
        }
    }

    fn read(&self, addr: u64, len: u32) -> Result<Piece, Fault> {
        self.tlb.translate(DmaAddr(addr), len, Access::Read)
    }

    /// What is written in the page of this number.
    fn page(&self, page: u64) -> u64 {
        number(self.read(IOVA + 2 * PAGE * page, 8).unwrap())
    }
}

/// Reads a number through a piece, which must be valid: Miri sees if it is not.
fn number(piece: Piece) -> u64 {
    assert_eq!(piece.len, 8);
    // SAFETY: a piece of eight bytes is readable.
    u64::from_le_bytes(unsafe { piece.ptr.cast::<[u8; 8]>().read() })
}

#[test]
fn a_hit_asks_nobody() {
    let setup = Setup::new();
    setup.map_pages(3);
    for page in [0, 1, 2, 0, 0, 2, 1] {
        assert_eq!(setup.page(page), page);
    }
    assert_eq!(setup.table.lookups(), 3);
    assert_eq!(setup.read(IOVA + PAGE - 8, 8).unwrap().len, 8);
    assert_eq!(setup.table.lookups(), 3, "the whole mapping is known");
}

#[test]
fn a_piece_ends_with_its_mapping() {
    let setup = Setup::new();
    let memory = setup.memory(3 * PAGE);
    memory.write(PAGE + 16, &7u64.to_le_bytes()).unwrap();
    let window = Mapped {
        last: DmaAddr(IOVA + 31),
        offset: PAGE,
        ..mapped(IOVA, &memory)
    };
    setup.table.map(window);
    for _ in 0..2 {
        assert_eq!(number(setup.read(IOVA + 16, 8).unwrap()), 7);
        let piece = setup.read(IOVA + 16, 100).unwrap();
        assert_eq!((piece.addr, piece.len), (DmaAddr(IOVA + 16), 16));
        assert_eq!(setup.read(IOVA + 32, 1), Err(Fault::NoMapping));
        assert_eq!(setup.read(IOVA - 1, 2), Err(Fault::NoMapping));
    }
}

#[test]
fn a_mapping_may_end_with_the_last_address() {
    let setup = Setup::new();
    let first = u64::MAX - (PAGE - 1);
    setup.table.map(mapped(first, &setup.memory(PAGE)));
    for _ in 0..2 {
        assert_eq!(setup.read(u64::MAX, 9).unwrap().len, 1);
        assert_eq!(setup.read(first, u32::MAX).unwrap().len, 4096);
    }
}

#[test]
fn each_access_needs_its_permission_known_or_not() {
    let setup = Setup::new();
    setup.table.map(Mapped {
        writable: false,
        ..mapped(IOVA, &setup.memory(16))
    });
    let write = || setup.tlb.translate(DmaAddr(IOVA), 1, Access::Write);
    assert_eq!(write(), Err(Fault::Permission));
    assert!(setup.read(IOVA, 1).is_ok());
    assert_eq!(write(), Err(Fault::Permission));
}

#[test]
fn a_withdrawn_mapping_faults_at_once_and_its_memory_goes_with_the_next_look() {
    let setup = Setup::new();
    setup.map_pages(2);
    let before = setup.tlb.generation();
    let piece = setup.read(IOVA, 8).unwrap();
    assert_eq!(setup.page(1), 1);
    setup.table.unmap(IOVA);
    assert_eq!(setup.read(IOVA, 8), Err(Fault::NoMapping));
    assert_eq!(setup.page(1), 1, "the other one is still there");
    // The piece was handed out, and nobody has been told that it is not to be used any more.
    assert_eq!(number(piece), 0);
    assert_eq!(setup.heap.outstanding(), 8192);
    assert_ne!(setup.tlb.generation(), before);
    assert_eq!(setup.heap.outstanding(), 4096);
}

#[test]
fn an_unused_cache_lets_go_too() {
    let setup = Setup::new();
    setup.map_pages(1);
    setup.page(0);
    setup.table.unmap(IOVA);
    let _ = setup.tlb.generation();
    assert_eq!(setup.heap.outstanding(), 0);
    assert_eq!(setup.tlb.generation(), setup.tlb.generation());
}

#[test]
fn memory_that_moved_is_found_where_it_is() {
    let setup = Setup::new();
    setup.map_pages(1);
    assert_eq!(setup.page(0), 0);
    setup.table.unmap(IOVA);
    let memory = setup.memory(PAGE);
    memory.write(0, &9u64.to_le_bytes()).unwrap();
    setup.table.map(mapped(IOVA, &memory));
    assert_eq!(setup.page(0), 9);
}

#[test]
fn more_mappings_than_entries_are_used_in_turn_and_kept_while_in_use() {
    const PAGES: u64 = if cfg!(miri) { 100 } else { 200 };
    let setup = Setup::new();
    setup.map_pages(PAGES);
    let before = setup.tlb.generation();
    let pieces: Vec<_> = (0..PAGES)
        .map(|page| setup.read(IOVA + 2 * PAGE * page, 8).unwrap())
        .collect();
    // All pieces are from one generation, so all of them are valid, also when nothing is mapped.
    for page in 0..PAGES {
        setup.table.unmap(IOVA + 2 * PAGE * page);
    }
    for (page, &piece) in (0..).zip(&pieces) {
        assert_eq!(number(piece), page);
    }
    assert_eq!(setup.heap.outstanding() as u64, PAGES * PAGE);
    assert_ne!(setup.tlb.generation(), before);
    assert_eq!(setup.heap.outstanding(), 0);
}

#[test]
fn memory_is_kept_for_a_while_only() {
    const KEPT_MAX: u64 = 512;
    const PAGES: u64 = if cfg!(miri) { KEPT_MAX + 8 } else { 2500 };
    let setup = Setup::new();
    setup.map_pages(PAGES);
    let mut generations = vec![setup.tlb.generation()];
    for page in 0..PAGES {
        setup.page(page);
        generations.push(setup.tlb.generation());
    }
    generations.dedup();
    // One more than may be kept starts another generation.
    let flushes = PAGES / (KEPT_MAX + 1);
    assert_eq!(generations.len() as u64, 1 + flushes, "{generations:?}");
    // What is not the table's is the cache's.
    setup.table.forget();
    let kept = setup.heap.outstanding() as u64 / PAGE;
    assert_eq!(kept, PAGES % (KEPT_MAX + 1));
}

#[test]
fn many_small_mappings_are_known_at_once_and_one_large_one_on_all_its_pages() {
    const LARGE: u64 = IOVA + (1 << 30);
    let setup = Setup::new();
    setup.map_pages(100);
    setup.table.map(mapped(LARGE, &setup.memory(64 * PAGE)));
    for _ in 0..3 {
        for page in 0..64 {
            assert!(setup.read(LARGE + PAGE * page, 8).is_ok());
        }
        assert!((0..100).all(|page| setup.page(page) == page));
    }
    // The large one may have to be found again where a page of it has given way to another mapping.
    let lookups = setup.table.lookups();
    assert!((101..=101 + 2 * 64).contains(&lookups), "{lookups}");
}

/// A lookup that returns what it is told to, and changes its generation at will.
struct Liar {
    answer: Mapped,
    generation: Cell<u64>,
}

impl Lookup for Liar {
    fn lookup(&self, _: DmaAddr, _: Access) -> Result<Mapped, Fault> {
        Ok(self.answer.clone())
    }

    fn generation(&self) -> u64 {
        self.generation.get()
    }
}

#[test]
fn a_lookup_that_lies_leads_nowhere() {
    let setup = Setup::new();
    let honest = mapped(IOVA, &setup.memory(PAGE));
    let ask = |answer: Mapped, access| {
        let generation = Cell::new(0);
        DeviceTlb::new(Liar { answer, generation }).translate(DmaAddr(IOVA + 8), 8, access)
    };
    let read = |answer| ask(answer, Access::Read);
    assert!(read(honest.clone()).is_ok());
    let beyond = Mapped {
        last: DmaAddr(IOVA + PAGE),
        ..honest.clone()
    };
    let shifted = Mapped {
        offset: 1,
        ..honest.clone()
    };
    let outside = Mapped {
        last: DmaAddr(IOVA + 15),
        offset: PAGE,
        ..honest.clone()
    };
    let wraps = Mapped {
        offset: u64::MAX,
        ..honest.clone()
    };
    let everything = Mapped {
        first: DmaAddr(0),
        last: DmaAddr(u64::MAX),
        ..honest.clone()
    };
    let backwards = Mapped {
        first: DmaAddr(IOVA + 16),
        last: DmaAddr(IOVA),
        ..honest.clone()
    };
    let behind = Mapped {
        first: DmaAddr(IOVA + 9),
        last: DmaAddr(IOVA + 15),
        ..honest.clone()
    };
    let before = Mapped {
        last: DmaAddr(IOVA + 7),
        ..honest.clone()
    };
    for lie in [
        beyond, shifted, outside, wraps, everything, backwards, behind, before,
    ] {
        let what = format!("{lie:?}");
        assert_eq!(read(lie), Err(Fault::NoMapping), "{what}");
    }
    let closed = Mapped {
        readable: false,
        ..honest
    };
    assert_eq!(read(closed.clone()), Err(Fault::Permission));
    assert!(ask(closed, Access::Write).is_ok());
}

#[test]
fn a_generation_that_goes_back_frees_nothing_in_use() {
    let setup = Setup::new();
    let liar = Liar {
        answer: mapped(IOVA, &setup.memory(PAGE)),
        generation: Cell::new(7),
    };
    let tlb = DeviceTlb::new(&liar);
    let first = tlb.generation();
    let piece = tlb.translate(DmaAddr(IOVA), 8, Access::Read).unwrap();
    liar.generation.set(3);
    assert!(tlb.translate(DmaAddr(IOVA), 8, Access::Read).is_ok());
    liar.generation.set(7);
    assert_eq!(number(piece), 0);
    // A piece from before was outdated meanwhile: its holder is told.
    assert_ne!(tlb.generation(), first);
}

/// Memory inside of memory starts at the same pointer, and is kept all the same.
#[test]
fn memory_inside_of_memory_is_not_mistaken_for_it() {
    let setup = Setup::new();
    let outer = setup.memory(2 * PAGE);
    let arena = Arena::new(outer.clone(), DmaAddr(0)).unwrap();
    let dma = arena as Arc<dyn DmaAllocator>;
    let inner = SharedMemory::new(&dma, PAGE as usize).unwrap();
    setup.table.map(mapped(IOVA, &inner));
    drop(inner);
    // SAFETY: nobody writes through the cache.
    let outer = unsafe { DeviceMemory::lent(&outer) };
    setup.table.map(whole(IOVA + 0x10_0000, outer));
    assert!(setup.read(IOVA, 8).is_ok());
    assert!(setup.read(IOVA + 0x10_0000, 8).is_ok());
    setup.table.unmap(IOVA);
    assert_eq!(setup.read(IOVA, 8), Err(Fault::NoMapping));
    // A piece of the inner one is out, so its part of the arena must not be given to another.
    let next = DmaBuffer::new(&dma, PAGE as usize).unwrap();
    assert_eq!(next.addr(), DmaAddr(PAGE));
    let _ = setup.tlb.generation();
    let again = DmaBuffer::new(&dma, PAGE as usize).unwrap();
    assert_eq!(again.addr(), DmaAddr(0));
}
