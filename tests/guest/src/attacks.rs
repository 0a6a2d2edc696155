//! Attacks by DMA: a device is told to write to, and to read, what it was not lent.
//!
//! `cards=attacks` wants two `edu` devices. `interrupts=WHOSE` says which messages the IOMMU takes
//! from no device that makes them up: `all`, `others` (those that another device sends), or `none`.
//! With `faults=silent` the IOMMU need not say what it refuses.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use kernel::System;
use kernel::log::info;
use vdpa::Platform;
use vdpa::dma::{DmaFault, DmaFaultKind, IsolationUnit};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::{Callback, DomainChange, InterruptVector, IommuDomain};

use crate::edu::{Edu, Page, peek, poke};
use crate::outcome::{Failure, Outcome};
use crate::{ensure, ensure_eq};

/// What the attacker writes.
const MARK: u64 = 0x6b72_616d_2d41_4d44;
/// What it must not learn.
const SECRET: u64 = 0x7465_7263_6573_2d41;
/// Where in its own page a client has what it copies, where the copy comes, and what is private.
const SOURCE: u64 = 0;
const COPY: u64 = 0x800;
const PRIVATE: u64 = 0x400;
const WORD: u32 = 8;

/// How long it may take until a fault has been read, and an interrupt has come.
const REPORTED: Duration = Duration::from_secs(5);
const RAISED: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(10);

/// Attacks, by one engine, what the other and the kernel have.
pub async fn run(system: &System) -> Outcome {
    let engines = Edu::all(system)?;
    let [attacker, victim] = &engines[..] else {
        return Err("there are not two engines".into());
    };
    let platform = system.platform();
    if !platform.isolates(attacker.unit()) {
        without_iommu(platform, attacker).await?;
        return interrupts(system, attacker, victim).await;
    }
    let silent = system.command_line().get("faults") == Some("silent");
    let attacker = Client::new(platform, attacker, silent)?;
    let victim = Client::new(platform, victim, silent)?;
    attacker.works().await?;
    victim.works().await?;
    poke(&victim.page, PRIVATE, SECRET);

    let freed = attacker.page_given_back().await?;
    let heap = Box::new(SECRET);
    for (what, addr) in [
        ("kernel text", bait as *const () as u64),
        ("the page tables", page_table_entry()),
        ("the heap", (&raw const *heap).expose_provenance() as u64),
        ("another client's memory", victim.page.addr() + COPY),
        ("memory that was given back", freed.addr()),
    ] {
        attacker.attack(what, addr).await?;
    }
    attacker.spy(victim.page.addr() + PRIVATE).await?;
    ensure_eq!(*black_box(heap), SECRET);
    interrupts(system, attacker.engine, victim.engine).await?;

    // The machine goes on, and so do both clients.
    attacker.works().await?;
    victim.works().await?;
    ensure_eq!(victim.engine.unit().dma_faults().count, 0);
    info!("attacks: {}", attacker.engine.unit().dma_faults());
    Ok(())
}

/// Nothing stands in the way, so the attacks are real.
async fn without_iommu(platform: &Arc<dyn Platform>, attacker: &Edu) -> Outcome {
    let (own, other) = (Page::new(platform)?, Page::new(platform)?);
    poke(&own, SOURCE, MARK);
    attacker.read(own.addr() + SOURCE, WORD).await?;
    attacker.write(other.addr() + COPY, WORD).await?;
    ensure_eq!(peek(other.addr() + COPY), MARK);
    poke(&other, PRIVATE, SECRET);
    attacker.read(other.addr() + PRIVATE, WORD).await?;
    attacker.write(own.addr() + COPY, WORD).await?;
    ensure_eq!(peek(own.addr() + COPY), SECRET);
    Ok(())
}

/// Who has an engine, and the only page that it may reach.
struct Client<'a> {
    engine: &'a Edu,
    platform: &'a Arc<dyn Platform>,
    // The engine has left its domain before the memory is free.
    domain: Arc<dyn IommuDomain>,
    page: Page,
    silent: bool,
}

impl<'a> Client<'a> {
    fn new(
        platform: &'a Arc<dyn Platform>,
        engine: &'a Edu,
        silent: bool,
    ) -> Result<Self, Failure> {
        let page = Page::new(platform)?;
        let domain = platform.isolate(engine.unit());
        let domain = domain.ok_or("the IOMMU has no domain for an engine")?;
        domain.enter()?;
        domain.change(&[lent(&page)?])?;
        Ok(Self {
            engine,
            platform,
            domain,
            page,
            silent,
        })
    }

    /// What is its own, the engine can copy.
    async fn works(&self) -> Outcome {
        poke(&self.page, SOURCE, MARK);
        poke(&self.page, COPY, 0);
        self.engine.read(self.page.addr() + SOURCE, WORD).await?;
        self.engine.write(self.page.addr() + COPY, WORD).await?;
        ensure_eq!(peek(self.page.addr() + COPY), MARK);
        Ok(())
    }

    /// A page that the engine could write, and which it was told to forget.
    async fn page_given_back(&self) -> Result<Page, Failure> {
        let page = Page::new(self.platform)?;
        self.domain.change(&[lent(&page)?])?;
        self.engine.read(self.page.addr() + SOURCE, WORD).await?;
        self.engine.write(page.addr(), WORD).await?;
        ensure_eq!(peek(page.addr()), MARK);
        self.domain.change(&[DomainChange::Unmap(range(&page)?)])?;
        poke(&page, 0, 0);
        Ok(page)
    }

    /// Writes where it may not.
    async fn attack(&self, what: &str, addr: u64) -> Outcome {
        self.engine.read(self.page.addr() + SOURCE, WORD).await?;
        let (before, faults) = (peek(addr), self.faults());
        self.engine.write(addr, WORD).await?;
        ensure!(
            peek(addr) == before,
            "{what} at {addr:#x} has been overwritten"
        );
        let Some(fault) = self.fault_after(faults).await? else {
            return Ok(());
        };
        ensure!(
            fault.addr & !0xfff == addr & !0xfff
                && (fault.access.is_empty() || fault.access.contains(Permission::WRITE))
                && fault.kind == DmaFaultKind::NotMapped,
            "a write to {what} at {addr:#x} was reported as {fault}"
        );
        info!("attacks: {what}: {fault}");
        Ok(())
    }

    /// Reads what it may not, and looks at what it got.
    async fn spy(&self, addr: u64) -> Outcome {
        let faults = self.faults();
        self.engine.read(addr, WORD).await?;
        if let Some(fault) = self.fault_after(faults).await? {
            ensure!(
                !fault.access.contains(Permission::WRITE),
                "a read was reported as {fault}"
            );
        }
        self.engine.write(self.page.addr() + COPY, WORD).await?;
        ensure!(
            peek(self.page.addr() + COPY) != SECRET,
            "the engine has read another client's memory"
        );
        Ok(())
    }

    fn faults(&self) -> u64 {
        self.engine.unit().dma_faults().count
    }

    /// The fault that is reported beyond so many.
    async fn fault_after(&self, count: u64) -> Result<Option<DmaFault>, Failure> {
        let until = self.platform.now() + REPORTED;
        while !self.silent && self.platform.now() < until {
            let faults = self.engine.unit().dma_faults();
            if faults.count > count {
                return Ok(faults.last);
            }
            self.platform.sleep(PAUSE).await;
        }
        self.silent
            .then_some(None)
            .ok_or_else(|| "no fault was reported".into())
    }
}

/// The engine sends messages that interrupt: one as the processor takes it, and the one of the other
/// engine, which may.
async fn interrupts(system: &System, attacker: &Edu, victim: &Edu) -> Outcome {
    let platform = system.platform();
    let plain = Listener::new(platform, None)?;
    let others = Listener::new(platform, Some(victim.unit()))?;
    ensure!(
        others.hears(platform, victim).await?,
        "an engine's own interrupt does not come"
    );
    let plain = plain.hears(platform, attacker).await?;
    let others = others.hears(platform, attacker).await?;
    info!("attacks: an interrupt was imitated: {plain}, another device's: {others}");
    let may = match system.command_line().get("interrupts") {
        Some("all") => (false, false),
        // What becomes of others depends on QEMU's version.
        Some("others") => (plain, false),
        Some("none") => (true, true),
        _ => return Err("interrupts=all, others or none".into()),
    };
    ensure_eq!((plain, others), may);
    Ok(())
}

/// A vector, and how often it was raised.
struct Listener {
    vector: Box<dyn InterruptVector>,
    count: Arc<AtomicU32>,
}

impl Listener {
    fn new(
        platform: &Arc<dyn Platform>,
        source: Option<&Arc<IsolationUnit>>,
    ) -> Result<Self, Failure> {
        let count = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&count);
        let raised = Callback::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let vector = platform.allocate_vector(source.map(|unit| &**unit), raised)?;
        Ok(Self { vector, count })
    }

    /// Whether it is raised when the engine sends the message.
    async fn hears(&self, platform: &Arc<dyn Platform>, engine: &Edu) -> Result<bool, Failure> {
        let before = self.count.load(Ordering::Relaxed);
        engine.interrupt(self.vector.message())?;
        platform.sleep(RAISED).await;
        Ok(self.count.load(Ordering::Relaxed) != before)
    }
}

fn lent(page: &Page) -> Result<DomainChange, Failure> {
    Ok(DomainChange::Map {
        range: range(page)?,
        permission: Permission::READ | Permission::WRITE,
        addr: page.dma_addr(),
    })
}

/// A page is at its own address, as with the kernel's drivers.
fn range(page: &Page) -> Result<IovaRange, Failure> {
    Ok(IovaRange::new(page.addr(), Page::SIZE as u64)?)
}

/// A function that is there to be overwritten.
#[inline(never)]
extern "C" fn bait() -> u64 {
    black_box(SECRET)
}

/// Where the last entry of the first page table is.
fn page_table_entry() -> u64 {
    let table: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) table, options(nomem, nostack, preserves_flags)) };
    (table & 0x000f_ffff_ffff_f000) + 0xff8
}
