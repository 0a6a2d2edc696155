//! One function's configuration space: bytes of which some can be written.

use std::sync::Arc;

use spin::Mutex;

use super::slot::Slot;
use super::tree::FakeBus;

pub const COMMAND: u16 = 0x04;
pub const STATUS: u16 = 0x06;
pub const MEMORY_ENABLE: u16 = 2;
pub const BUS_MASTER: u16 = 4;
const CAPABILITY_LIST: u8 = 1 << 4;
const FIRST_BAR: u16 = 0x10;
const MSIX: u8 = 0x11;

pub use super::slot::BarModel;

/// A write as the function saw it.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub offset: u16,
    pub value: u32,
    /// The command register at that moment.
    pub command: u16,
}

#[derive(Clone, Copy)]
pub enum BarType {
    Io,
    Memory32,
    Memory64,
    Prefetchable64,
}

#[derive(Clone, Copy)]
struct BarSpec {
    index: usize,
    size: u64,
    kind: BarType,
}

pub struct FakeFunction {
    state: Mutex<State>,
    bars: Vec<BarSpec>,
    model: Option<Arc<dyn BarModel>>,
    /// The bus behind a bridge.
    pub behind: Option<Arc<FakeBus>>,
}

struct State {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    writes: Vec<Write>,
    gone: bool,
}

/// Makes a function.
pub struct Builder {
    function: FakeFunction,
    last_capability: Option<u16>,
    next_capability: u16,
}

impl Builder {
    pub fn endpoint(vendor: u16, device: u16) -> Self {
        let state = State {
            bytes: vec![0; 4096],
            writable: vec![0; 4096],
            writes: Vec::new(),
            gone: false,
        };
        let function = FakeFunction {
            state: Mutex::new(state),
            bars: Vec::new(),
            model: None,
            behind: None,
        };
        let builder = Self {
            function,
            last_capability: None,
            next_capability: 0x40,
        };
        builder
            .set(0x00, &vendor.to_le_bytes())
            .set(0x02, &device.to_le_bytes())
            .writable(COMMAND, &[0x07, 0x04])
    }

    /// A PCI-to-PCI bridge whose numbers and windows nobody has set.
    pub fn bridge(behind: Arc<FakeBus>) -> Self {
        let mut bridge = Self::endpoint(0x1b36, 0x000c)
            .class(0x06_0400)
            .set(0x0e, &[1]);
        bridge.function.behind = Some(behind);
        bridge
            .writable(0x18, &[0xff; 3])
            .writable(0x1c, &[0xf0, 0xf0])
            .writable(0x20, &[0xf0, 0xff, 0xf0, 0xff])
            .set(0x24, &[1, 0, 1, 0])
            .writable(0x24, &[0xf0, 0xff, 0xf0, 0xff])
            .writable(0x28, &[0xff; 8])
    }

    pub fn class(self, class: u32) -> Self {
        let [interface, subclass, base, _] = class.to_le_bytes();
        self.set(0x09, &[interface, subclass, base])
    }

    pub fn subsystem(self, vendor: u16, device: u16) -> Self {
        self.set(0x2c, &vendor.to_le_bytes())
            .set(0x2e, &device.to_le_bytes())
    }

    pub fn multi_function(self) -> Self {
        let kind = self.function.state.lock().bytes[0x0e];
        self.set(0x0e, &[kind | 0x80])
    }

    /// Bytes as the function is made.
    pub fn set(self, offset: u16, bytes: &[u8]) -> Self {
        let at = usize::from(offset);
        self.function.state.lock().bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Which bits can be written.
    pub fn writable(self, offset: u16, mask: &[u8]) -> Self {
        let at = usize::from(offset);
        self.function.state.lock().writable[at..at + mask.len()].copy_from_slice(mask);
        self
    }

    /// A base address register that nobody has assigned.
    pub fn bar(mut self, index: usize, size: u64, kind: BarType) -> Self {
        self.function.bars.push(BarSpec { index, size, kind });
        let offset = register(index);
        let mask = !(size - 1);
        let (flags, fixed) = match kind {
            BarType::Io => (0x1_u8, 0x3),
            BarType::Memory32 => (0x0, 0xf),
            BarType::Memory64 => (0x4, 0xf),
            BarType::Prefetchable64 => (0xc, 0xf),
        };
        let low = (mask & !fixed & 0xffff_ffff).to_le_bytes();
        let builder = self.set(offset, &[flags]).writable(offset, &low[..4]);
        match kind {
            BarType::Io | BarType::Memory32 => builder,
            BarType::Memory64 | BarType::Prefetchable64 => {
                builder.writable(offset + 4, &(mask >> 32).to_le_bytes()[..4])
            }
        }
    }

    /// What firmware has put into a register.
    pub fn assigned(self, index: usize, address: u64) -> Self {
        let function = &self.function;
        function.poke(register(index), &address.to_le_bytes()[..4]);
        if !matches!(
            function.bar_spec(index).kind,
            BarType::Io | BarType::Memory32
        ) {
            function.poke(register(index + 1), &address.to_le_bytes()[4..]);
        }
        self
    }

    /// Appends a capability to the list; `body` follows the id and the pointer.
    pub fn capability(mut self, id: u8, body: &[u8]) -> Self {
        let at = self.next_capability;
        let link = self.last_capability.map_or(0x34, |last| last + 1);
        self.last_capability = Some(at);
        self.next_capability = (at + 2 + u16::try_from(body.len()).expect("short") + 3) & !3;
        let status = self.function.state.lock().bytes[usize::from(STATUS)];
        self.set(STATUS, &[status | CAPABILITY_LIST])
            .set(link, &[u8::try_from(at).expect("in the first 256 bytes")])
            .set(at, &[id, 0])
            .set(at + 2, body)
    }

    /// A PCI Express function: 0 is an endpoint, 4 a root port, 5 and 6 are a switch's ports, 7 and
    /// 8 bridges from PCI Express and to it.
    pub fn express(self, kind: u8) -> Self {
        self.capability(0x10, &[kind << 4 | 2, 0])
    }

    /// Access control that can be switched on.
    pub fn access_control(self, capability: u8) -> Self {
        self.set(0x100, &0x0001_000d_u32.to_le_bytes())
            .set(0x104, &[capability])
            .writable(0x106, &[capability])
    }

    /// An MSI-X capability: `entries`, and BAR and offset of the table and of the pending bits.
    pub fn msix(self, entries: u16, table: u32, pending: u32) -> Self {
        let at = self.next_capability;
        let control = (entries - 1).to_le_bytes();
        let words = [table.to_le_bytes(), pending.to_le_bytes()].concat();
        self.capability(MSIX, &[&control[..], &words].concat())
            .writable(at + 3, &[0xc0])
    }

    pub fn model(mut self, model: Arc<dyn BarModel>) -> Self {
        self.function.model = Some(model);
        self
    }

    pub fn build(self) -> Arc<FakeFunction> {
        Arc::new(self.function)
    }
}

impl FakeFunction {
    pub fn read(&self, offset: u16) -> u32 {
        let state = self.state.lock();
        if state.gone {
            return u32::MAX;
        }
        let at = usize::from(offset);
        u32::from_le_bytes(state.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    pub fn write(&self, offset: u16, value: u32) {
        self.write_bytes(offset, value, 4);
    }

    pub fn write16(&self, offset: u16, value: u16) {
        self.write_bytes(offset, value.into(), 2);
    }

    fn write_bytes(&self, offset: u16, value: u32, width: usize) {
        let mut state = self.state.lock();
        if state.gone {
            return;
        }
        let command = u16::from_le_bytes([state.bytes[4], state.bytes[5]]);
        state.writes.push(Write {
            offset,
            value,
            command,
        });
        for (at, byte) in (usize::from(offset)..).zip(value.to_le_bytes()).take(width) {
            // The status register is cleared by writing ones.
            let mask = if at == 6 || at == 7 {
                0
            } else {
                state.writable[at]
            };
            state.bytes[at] = (state.bytes[at] & !mask) | (byte & mask);
        }
    }

    /// Firmware's way to set bytes.
    fn poke(&self, offset: u16, bytes: &[u8]) {
        let mut state = self.state.lock();
        for (at, byte) in (usize::from(offset)..).zip(bytes) {
            state.bytes[at] = (state.bytes[at] & !state.writable[at]) | (byte & state.writable[at]);
        }
    }

    pub fn peek16(&self, offset: u16) -> u16 {
        let state = self.state.lock();
        let at = usize::from(offset);
        u16::from_le_bytes([state.bytes[at], state.bytes[at + 1]])
    }

    pub fn command(&self) -> u16 {
        self.peek16(COMMAND)
    }

    /// Every byte, to compare.
    pub fn snapshot(&self) -> Vec<u8> {
        self.state.lock().bytes.clone()
    }

    pub fn writes(&self) -> Vec<Write> {
        self.state.lock().writes.clone()
    }

    /// Nobody answers any more.
    pub fn pull_out(&self) {
        self.state.lock().gone = true;
    }

    pub fn set_vendor(&self, vendor: u16) {
        self.state.lock().bytes[..2].copy_from_slice(&vendor.to_le_bytes());
    }

    /// What was written is forgotten.
    pub fn lose_power(&self) {
        let mut state = self.state.lock();
        let State {
            bytes, writable, ..
        } = &mut *state;
        for (byte, writable) in bytes.iter_mut().zip(writable) {
            *byte &= !*writable;
        }
    }

    /// Where a register is; `None` if it has no address.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        let low = u64::from(self.read(register(index)));
        let address = match self.bar_spec(index).kind {
            BarType::Io => low & !0x3,
            BarType::Memory32 => low & !0xf,
            BarType::Memory64 | BarType::Prefetchable64 => {
                (u64::from(self.read(register(index + 1))) << 32) | (low & !0xf)
            }
        };
        (address != 0).then_some(address)
    }

    /// The range of every memory register that has an address.
    pub fn memory(&self) -> Vec<(usize, std::ops::Range<u64>)> {
        let memory = self
            .bars
            .iter()
            .filter(|bar| !matches!(bar.kind, BarType::Io));
        let ranges = memory.filter_map(|bar| {
            let address = self.bar_address(bar.index)?;
            Some((bar.index, address..address + bar.size))
        });
        ranges.collect()
    }

    /// Whether the function answers to its memory addresses.
    pub fn decodes(&self) -> bool {
        !self.state.lock().gone && self.command() & MEMORY_ENABLE != 0
    }

    /// The memory that a bridge lets through.
    pub fn bridge_window(&self) -> Option<std::ops::Range<u64>> {
        let base = u64::from(self.peek16(0x20) & 0xfff0) << 16;
        let end = (u64::from(self.peek16(0x22) & 0xfff0) << 16) + (1 << 20);
        (base != 0 && base < end).then_some(base..end)
    }

    fn bar_spec(&self, index: usize) -> BarSpec {
        *self
            .bars
            .iter()
            .find(|bar| bar.index == index)
            .expect("a BAR of this index")
    }
}

impl Slot for FakeFunction {
    fn read(&self, offset: u16) -> u32 {
        self.read(offset)
    }

    fn write(&self, offset: u16, value: u32) {
        self.write(offset, value);
    }

    fn write16(&self, offset: u16, value: u16) {
        self.write16(offset, value);
    }

    fn memory(&self) -> Vec<(usize, std::ops::Range<u64>)> {
        self.memory()
    }

    fn decodes(&self) -> bool {
        self.decodes()
    }

    fn model(&self) -> Option<&dyn BarModel> {
        self.model.as_deref()
    }

    fn behind(&self) -> Option<&Arc<FakeBus>> {
        self.behind.as_ref()
    }

    fn bridge_window(&self) -> Option<std::ops::Range<u64>> {
        self.bridge_window()
    }
}

fn register(index: usize) -> u16 {
    FIRST_BAR + 4 * u16::try_from(index).expect("at most six")
}
