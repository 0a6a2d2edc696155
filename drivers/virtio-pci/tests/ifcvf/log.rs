//! The log of written pages: what the card marks, what is marked of the rings, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use ifcvf_card::{Plan, Product};
use vdpa::device::{Attachment, VdpaClaim};
use vdpa::dirty::{DirtyPages, LogError};
use vdpa::dma::{DmaSpace, Owner, Trust};
use vdpa::ops::{DirtyLog, OpError};
use virtq::{DmaAddr, SharedMemory};

use crate::bench::Bench;
use crate::rig::{Rig, must};

/// Bits for the first 8 GiB: what a platform of the tests has lies a little above 4 GiB.
const LEN: u64 = 0x4_0000;

/// A bitmap in memory that the card reaches.
struct Logged {
    attachment: Arc<Attachment>,
    space: Arc<DmaSpace>,
    memory: SharedMemory,
}

impl Logged {
    fn new(bench: &Bench, device: &Arc<VdpaClaim>) -> Self {
        let attachment = device.attach(Owner::Kernel, Trust::Isolated).unwrap();
        let space = DmaSpace::new(&bench.machine.platform());
        space.attach(Arc::<Attachment>::clone(&attachment)).unwrap();
        let len = usize::try_from(LEN).unwrap();
        let memory = SharedMemory::new(&space.allocator(), len).unwrap();
        Self {
            attachment,
            space,
            memory,
        }
    }

    fn log(&self) -> DirtyLog {
        DirtyLog {
            base: self.memory.addr(),
            len: LEN,
        }
    }

    fn start(&self, bench: &Bench) {
        // SAFETY: the bitmap is memory of its own.
        let started = unsafe { self.attachment.start_dirty_log(self.log()) };
        bench.run(started).unwrap();
    }

    fn take(&self) -> BTreeSet<u64> {
        let mut pages = DirtyPages::new();
        pages.take(&self.memory, 0, LEN).unwrap();
        pages.iter().collect()
    }
}

/// The pages of the used rings (VIRTIO 1.2, 2.7.8).
fn rings(rig: &Rig) -> BTreeSet<u64> {
    let pages = rig.lines.iter().flat_map(|line| {
        let DmaAddr(start) = line.ring.addresses().device;
        let last = start + 6 + 8 * u64::from(line.ring.size()) - 1;
        start / 4096..=last / 4096
    });
    pages.collect()
}

fn traffic(rig: &mut Rig, product: Product) {
    for number in 0..20_u8 {
        match product.kind() {
            ifcvf_card::Kind::Net => {
                rig.send(0, number.into());
                assert_eq!(rig.frame(0), u32::from(number));
            }
            ifcvf_card::Kind::Blk => {
                rig.write_sector(usize::from(number % 2), number.into(), number);
                rig.wait(usize::from(number % 2));
            }
        }
    }
}

#[test]
fn the_log_is_the_payload_of_the_card_and_the_rings() {
    for product in Product::ALL {
        let (bench, device) = Bench::one(Plan::new(product));
        let logged = Logged::new(&bench, &device);
        let mut rig = Rig::start(bench.platform(), &device, must());
        traffic(&mut rig, product);
        assert_eq!(logged.take(), BTreeSet::new());
        let _ = bench.card().take_written_pages();
        logged.start(&bench);
        traffic(&mut rig, product);
        bench.run(device.suspend()).unwrap();
        let payload = bench.card().take_written_pages();
        assert!(payload.len() >= 20, "{product}");
        let expected: BTreeSet<_> = payload.union(&rings(&rig)).copied().collect();
        assert_eq!(logged.take(), expected, "{product}");
        bench.run(device.resume()).unwrap();
        bench.run(logged.attachment.stop_dirty_log()).unwrap();
        logged.take();
        traffic(&mut rig, product);
        assert_eq!(logged.take(), BTreeSet::new(), "{product}: it is off");
        rig.stop();
        bench.assert_lawful();
        logged.space.detach();
    }
}

#[test]
fn a_reset_ends_the_log() {
    let (bench, device) = Bench::one(Plan::new(Product::N3000Net));
    let logged = Logged::new(&bench, &device);
    let mut rig = Rig::start(bench.platform(), &device, must());
    logged.start(&bench);
    traffic(&mut rig, Product::N3000Net);
    bench.run(device.reset()).unwrap();
    logged.take();
    let states = vec![None; rig.lines.len()];
    let mut rig = Rig::new(bench.platform(), &device, must());
    bench.run(rig.run(&states)).unwrap();
    traffic(&mut rig, Product::N3000Net);
    assert_eq!(logged.take(), BTreeSet::new());
    bench.assert_lawful();
    rig.stop();
}

#[test]
fn a_card_that_is_pulled_out_ends_the_log() {
    let (bench, device) = Bench::one(Plan::new(Product::N3000Net));
    let logged = Logged::new(&bench, &device);
    let rig = Rig::start(bench.platform(), &device, must());
    logged.start(&bench);
    bench.card().remove();
    let stopped = bench.run(logged.attachment.stop_dirty_log());
    assert_eq!(stopped, Err(LogError::Device(OpError::Gone)));
    drop((rig, device));
    let function = bench.function(0);
    bench.run(bench.machine.pci.remove_device(&function));
    assert!(bench.vdpa.devices().is_empty());
}
