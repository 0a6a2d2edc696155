//! QEMU's `edu` device, a DMA engine that goes where it is told (QEMU, docs/specs/edu.rst).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr;
use core::time::Duration;

use kernel::System;
use pci::{BusMaster, PciDevice, Registers, capabilities};
use vdpa::Platform;
use vdpa::dma::IsolationUnit;
use vdpa::platform::InterruptMessage;
use virtq::{DmaAddr, DmaAllocator, DmaBlock};

use crate::outcome::Failure;

const ID: (u16, u16) = (0x1234, 0x11e8);

/// The registers: where from, where to, how many bytes, and what to do.
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
/// It runs, as long as the bit is there; and memory is written, not read.
const RUN: u32 = 1 << 0;
const TO_MEMORY: u32 = 1 << 1;
/// Interrupts that are raised and acknowledged, by their bits.
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
/// The capability for messages, with addresses of 64 bits (PCI Local Bus 3.0, 6.8.1).
const MSI: u8 = 0x05;
const MSI_CONTROL: u16 = 0x02;
const MSI_ADDRESS: u16 = 0x04;
const MSI_DATA: u16 = 0x0c;
const MSI_ON: u16 = 1;
/// Where the engine has the memory of its own that all data passes.
const BUFFER: u32 = 0x4_0000;

/// How long a transfer takes, and how long nothing may take.
const TRANSFER: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(10);

/// One of them.
pub struct Edu {
    function: Arc<PciDevice>,
    registers: Registers,
    platform: Arc<dyn Platform>,
    _master: BusMaster,
}

impl Edu {
    /// All that the machine has, each as the master of its bus.
    pub fn all(system: &System) -> Result<Vec<Self>, Failure> {
        let mut all = Vec::new();
        for function in system.pci().devices() {
            let identity = function.identity();
            if (identity.vendor, identity.device) != ID {
                continue;
            }
            let claim = function.claim()?;
            all.push(Self {
                registers: claim.map(0)?,
                platform: Arc::clone(system.platform()),
                // SAFETY: not sound where no IOMMU keeps the device from what it is told to reach,
                // which is what the test is about.
                _master: unsafe { claim.enable_bus_master() },
                function,
            });
        }
        Ok(all)
    }

    /// What an IOMMU takes it for.
    pub fn unit(&self) -> &Arc<IsolationUnit> {
        self.function.isolation_unit()
    }

    /// Reads memory into the engine.
    pub async fn read(&self, from: u64, count: u32) -> Result<(), Failure> {
        let from = u32::try_from(from)?;
        self.run([from, BUFFER, count, RUN]).await
    }

    /// Writes what it has into memory.
    pub async fn write(&self, to: u64, count: u32) -> Result<(), Failure> {
        let to = u32::try_from(to)?;
        self.run([BUFFER, to, count, RUN | TO_MEMORY]).await
    }

    /// Sends this message. QEMU says of a message alone which device writes it, and not of what the
    /// engine writes to the same address.
    pub fn interrupt(&self, message: InterruptMessage) -> Result<(), Failure> {
        let config = self.function.config();
        let list = capabilities(config)?;
        let msi = list.iter().find(|capability| capability.id == MSI);
        let at = msi.ok_or("the engine sends no messages")?.offset;
        for (register, value) in [
            (MSI_ADDRESS, message.address as u16),
            (MSI_ADDRESS + 2, (message.address >> 16) as u16),
            (MSI_ADDRESS + 4, (message.address >> 32) as u16),
            (MSI_ADDRESS + 6, (message.address >> 48) as u16),
            (MSI_DATA, message.data as u16),
            (MSI_CONTROL, MSI_ON),
        ] {
            // SAFETY: the message raises a vector of the test's own, or none.
            unsafe { config.write16(at + register, value) };
        }
        for register in [RAISE, ACKNOWLEDGE] {
            // SAFETY: sends the message.
            unsafe { self.registers.write32(register, 1) };
        }
        Ok(())
    }

    async fn run(&self, values: [u32; 4]) -> Result<(), Failure> {
        for (register, value) in [SOURCE, DESTINATION, COUNT, COMMAND]
            .into_iter()
            .zip(values)
        {
            // SAFETY: as for the mastering of the bus.
            unsafe { self.registers.write32(register, value) };
        }
        let until = self.platform.now() + LIMIT;
        while self.registers.read32(COMMAND) & RUN != 0 {
            if self.platform.now() > until {
                return Err(Failure::Failed("the engine does not end".into()));
            }
            self.platform.sleep(TRANSFER / 10).await;
        }
        Ok(())
    }
}

/// A page of memory for devices, which tests write as the processor, too.
pub struct Page {
    block: Option<DmaBlock>,
    dma: Arc<dyn DmaAllocator>,
}

impl Page {
    pub const SIZE: usize = 4096;

    pub fn new(platform: &Arc<dyn Platform>) -> Result<Self, Failure> {
        let dma = platform.dma();
        let layout = Layout::from_size_align(Self::SIZE, Self::SIZE)?;
        let block = Some(dma.allocate(layout)?);
        Ok(Self { block, dma })
    }

    pub fn dma_addr(&self) -> DmaAddr {
        self.block.as_ref().map_or(DmaAddr(0), |block| block.addr)
    }

    pub fn addr(&self) -> u64 {
        self.dma_addr().0
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            // SAFETY: it came from there, and the IOMMU has been told.
            unsafe { self.dma.deallocate(block) };
        }
    }
}

/// What is at an address, whoever has it.
pub fn peek(addr: u64) -> u64 {
    let word = ptr::with_exposed_provenance::<u64>(addr as usize);
    // SAFETY: the kernel has all memory at its address, and the test gives no others.
    unsafe { ptr::read_volatile(word) }
}

/// Puts a word into a page of the test's own.
pub fn poke(page: &Page, offset: u64, value: u64) {
    let word = ptr::with_exposed_provenance_mut::<u64>((page.addr() + offset) as usize);
    // SAFETY: nobody else has the page.
    unsafe { ptr::write_volatile(word, value) };
}
