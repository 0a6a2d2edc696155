//! A physical function whose virtual ones appear when they are enabled (PCI Express Base 6.0, 9).

use std::ops::Range;
use std::sync::{Arc, Weak};

use spin::Mutex;

use super::function::{BarModel, Builder, FakeFunction};
use super::slot::Slot;
use super::tree::FakeBus;
use super::virtio::{FakeVirtio, Plan};

/// Where the capability is.
pub const AT: u16 = 0x120;
const CONTROL: u16 = AT + 0x08;
const TOTAL: u16 = AT + 0x0e;
const COUNT: u16 = AT + 0x10;
const OFFSET: u16 = AT + 0x14;
const BARS: u16 = AT + 0x24;
const ENABLE: u16 = 1;
const MEMORY: u16 = 1 << 3;
const ARI_HIERARCHY: u16 = 1 << 4;

/// The memory of each virtual function: as that of [`FakeVirtio`].
pub const VF_BARS: [(usize, u64); 2] = [(1, 0x1000), (4, 0x4000)];

/// What a test decides about a card.
#[derive(Clone, Copy)]
pub struct SriovPlan {
    pub total: u16,
    /// Without and with all function numbers.
    pub offset: [u16; 2],
    pub stride: u16,
    /// The physical function has function numbers of eight bits.
    pub ari: bool,
    /// It keeps its virtual functions to itself.
    pub refuses: bool,
    /// Pages other than those of 4 KiB alone.
    pub odd_pages: bool,
}

impl Default for SriovPlan {
    fn default() -> Self {
        Self {
            total: 8,
            offset: [1, 1],
            stride: 1,
            ari: true,
            refuses: false,
            odd_pages: false,
        }
    }
}

pub struct FakeSriov {
    pub function: Arc<FakeFunction>,
    plan: SriovPlan,
    /// The bus on which it is, as function 0.
    bus: Arc<FakeBus>,
    pub virtual_functions: Mutex<Vec<Arc<FakeVirtio>>>,
    this: Weak<Self>,
    pub violations: Mutex<Vec<String>>,
}

impl FakeSriov {
    /// A card for `bus`.
    pub fn new(plan: SriovPlan, bus: &Arc<FakeBus>) -> Arc<Self> {
        let next: u32 = if plan.ari { 0x0001_000e } else { 0x0001_0003 };
        let pages: u32 = if plan.odd_pages { 2 } else { 0x553 };
        let function = Builder::endpoint(0x1af4, 0x7777)
            .class(0x02_0000)
            .set(0x100, &(next | u32::from(AT) << 20).to_le_bytes())
            .set(AT, &0x0001_0010_u32.to_le_bytes())
            .writable(CONTROL, &[0x19, 0])
            .set(TOTAL, &plan.total.to_le_bytes())
            .writable(COUNT, &[0xff, 0xff])
            .set(OFFSET + 2, &plan.stride.to_le_bytes())
            .set(AT + 0x1a, &0x1041_u16.to_le_bytes())
            .set(AT + 0x1c, &pages.to_le_bytes())
            .set(AT + 0x20, &[1])
            .writable(AT + 0x20, &[0xff, 0xff])
            .writable(BARS + 4, &[0, 0xf0, 0xff, 0xff])
            .set(BARS + 16, &[0xc])
            .writable(BARS + 16, &[0, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
            .build();
        Arc::new_cyclic(|this| Self {
            function,
            plan,
            bus: Arc::clone(bus),
            virtual_functions: Mutex::default(),
            this: Weak::clone(this),
            violations: Mutex::default(),
        })
    }

    /// The memory of a virtual function.
    pub fn memory_of(&self, index: u16) -> Vec<(usize, Range<u64>)> {
        let range = |&(bar, size): &(usize, u64)| {
            let at = BARS + 4 * u16::try_from(bar).expect("small");
            let low = u64::from(self.function.read(at) & !0xf);
            let high = match bar {
                4 => u64::from(self.function.read(at + 4)),
                _ => 0,
            };
            let base = (high << 32) | low;
            let start = base + u64::from(index) * size;
            (base != 0).then_some((bar, start..start + size))
        };
        VF_BARS.iter().filter_map(range).collect()
    }

    fn control(&self) -> u16 {
        self.function.peek16(CONTROL)
    }

    fn has_all_numbers(&self) -> bool {
        self.control() & ARI_HIERARCHY != 0
    }

    fn offset(&self) -> u16 {
        self.plan.offset[usize::from(self.has_all_numbers())]
    }

    fn written(&self, before: u16) {
        let enabled = self.control() & ENABLE != 0;
        let was = before & ENABLE != 0;
        if enabled && !was {
            if self.plan.refuses {
                self.function
                    .write16(CONTROL, self.control() & !(ENABLE | MEMORY));
                return;
            }
            let count = self.function.peek16(COUNT);
            if count == 0 || count > self.plan.total {
                self.violations.lock().push(format!("{count} functions"));
            }
            for index in 0..count {
                self.make(index);
            }
        } else if was && !enabled {
            let count = self.virtual_functions.lock().len();
            for index in 0..u16::try_from(count).expect("few") {
                let (device, number) = self.place(index);
                self.bus.remove(device, number);
            }
            for virtual_function in self.virtual_functions.lock().drain(..) {
                virtual_function
                    .function
                    .get()
                    .expect("made with it")
                    .pull_out();
            }
        }
    }

    fn place(&self, index: u16) -> (u8, u8) {
        let id = self.offset() + self.plan.stride * index;
        let id = u8::try_from(id).expect("on the bus of the physical function");
        (id >> 3, id & 7)
    }

    fn make(&self, index: u16) {
        let (device, inner) = FakeVirtio::new(Plan {
            device: 0xffff,
            ..Plan::default()
        });
        inner.set_vendor(0xffff);
        let (at, number) = self.place(index);
        let function = Arc::new(VirtualFunction {
            inner,
            physical: Weak::clone(&self.this),
            index,
        });
        self.bus.put(at, number, &function);
        self.virtual_functions.lock().push(device);
    }
}

impl Slot for FakeSriov {
    fn read(&self, offset: u16) -> u32 {
        let word = self.function.read(offset);
        if offset == OFFSET && word != u32::MAX {
            return (word & !0xffff) | u32::from(self.offset());
        }
        word
    }

    fn write(&self, offset: u16, value: u32) {
        let before = self.control();
        self.function.write(offset, value);
        self.written(before);
    }

    fn write16(&self, offset: u16, value: u16) {
        let before = self.control();
        if offset == COUNT && before & ENABLE != 0 {
            self.violations
                .lock()
                .push("another number while they are enabled".into());
        }
        self.function.write16(offset, value);
        self.written(before);
    }

    fn memory(&self) -> Vec<(usize, Range<u64>)> {
        Vec::new()
    }

    fn decodes(&self) -> bool {
        false
    }

    fn model(&self) -> Option<&dyn BarModel> {
        None
    }
}

/// It does not say whose it is, and has no memory registers.
struct VirtualFunction {
    inner: Arc<FakeFunction>,
    physical: Weak<FakeSriov>,
    index: u16,
}

impl Slot for VirtualFunction {
    fn read(&self, offset: u16) -> u32 {
        if (0x10..0x28).contains(&offset) {
            return 0;
        }
        self.inner.read(offset)
    }

    fn write(&self, offset: u16, value: u32) {
        self.inner.write(offset, value);
    }

    fn write16(&self, offset: u16, value: u16) {
        self.inner.write16(offset, value);
    }

    fn memory(&self) -> Vec<(usize, Range<u64>)> {
        let physical = self.physical.upgrade();
        physical.map_or_else(Vec::new, |physical| physical.memory_of(self.index))
    }

    fn decodes(&self) -> bool {
        let physical = self.physical.upgrade();
        physical.is_some_and(|physical| physical.control() & MEMORY != 0)
    }

    fn model(&self) -> Option<&dyn BarModel> {
        Slot::model(&*self.inner)
    }
}
