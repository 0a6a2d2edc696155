//! A machine with cards in its slots.

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ifcvf_card::{Card, Function, Host, Kind, Loopback, Message, Plan, RamDisk, Served, Storage};
use pci::PciDevice;
use vdpa::Platform;
use vdpa::bus::{Driver, ProbeError};
use vdpa::device::{VdpaBus, VdpaClaim};
use vdpa::keeper::hold;
use vdpa::platform::InterruptMessage;
use vdpa::testing::FakePlatform;
use virtio_pci::Parent;
use virtio_pci::ifcvf::{Ifcvf, probe};
use virtio_pci::vp_vdpa::{self, VpVdpa};
use virtq::Doorbell;
use virtq::testing::HeapMemory;

use crate::machine::Machine;
use crate::slot::{BarModel, Slot};
use crate::tree::FakeTree;

/// How often a card looks for something to do.
const LOOK: Duration = Duration::from_micros(100);
/// Of a disk, if nobody needs a larger one.
const SECTORS: usize = 128;

/// A card in its slot.
pub(crate) struct Seat(pub(crate) Arc<Card>);

impl Slot for Seat {
    fn read(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.0.read_config(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write(&self, offset: u16, value: u32) {
        self.0.write_config(offset, &value.to_le_bytes());
    }

    fn write16(&self, offset: u16, value: u16) {
        self.0.write_config(offset, &value.to_le_bytes());
    }

    fn memory(&self) -> Vec<(usize, Range<u64>)> {
        let bars = (0_u8..6).filter_map(|bar| {
            let start = self.0.bar_address(bar)?;
            Some((usize::from(bar), start..start + self.0.bar_size(bar)))
        });
        bars.collect()
    }

    fn decodes(&self) -> bool {
        true
    }

    fn model(&self) -> Option<&dyn BarModel> {
        Some(self)
    }
}

impl BarModel for Seat {
    fn read(&self, bar: usize, offset: u64, width: u8) -> u32 {
        let mut bytes = [0; 4];
        let bar = u8::try_from(bar).unwrap();
        self.0
            .read_bar(bar, offset, &mut bytes[..usize::from(width)]);
        u32::from_le_bytes(bytes)
    }

    fn write(&self, bar: usize, offset: u64, width: u8, value: u32) {
        let bar = u8::try_from(bar).unwrap();
        let bytes = value.to_le_bytes();
        self.0.write_bar(bar, offset, &bytes[..usize::from(width)]);
    }

    fn doorbell(&self, bar: usize, offset: u64, index: u16) -> Option<Doorbell> {
        self.0.doorbell(u8::try_from(bar).unwrap(), offset, index)
    }
}

/// The platform's interrupt controller.
#[derive(Debug)]
struct Controller(Weak<FakePlatform>);

impl Host for Controller {
    fn interrupt(&self, _vector: u16, Message { address, data }: Message) {
        if let Some(platform) = self.0.upgrade() {
            platform.fire(InterruptMessage { address, data });
        }
    }
}

/// A machine, and the cards in it from slot 1 on.
pub(crate) struct Bench {
    pub(crate) machine: Machine,
    pub(crate) cards: Vec<Arc<Card>>,
    pub(crate) vdpa: Arc<VdpaBus>,
    /// The configuration space of each card before any driver saw it.
    pub(crate) before: Vec<Vec<u8>>,
}

impl Bench {
    /// Enumerated; no driver is there yet.
    pub(crate) fn new(plans: impl IntoIterator<Item = Plan>) -> Self {
        let disk = RamDisk::new(SECTORS);
        Self::with_disk(&FakePlatform::new(), plans, &disk)
    }

    /// On this platform, with block cards that all have this disk.
    pub(crate) fn with_disk(
        platform: &Arc<FakePlatform>,
        plans: impl IntoIterator<Item = Plan>,
        disk: &(impl Storage + Clone + 'static),
    ) -> Self {
        let machine = Machine::on(Arc::clone(platform), FakeTree::new());
        let cards: Vec<_> = plans
            .into_iter()
            .map(|plan| card(platform, plan, Box::new(disk.clone())))
            .collect();
        for (slot, card) in (1..).zip(&cards) {
            let seat = Arc::new(Seat(Arc::clone(card)));
            machine.tree.root.put(slot, 0, &seat);
        }
        assert_eq!(machine.enumerate(), cards.len());
        let before = cards.iter().map(|card| card.snapshot()).collect();
        Self {
            machine,
            cards,
            vdpa: VdpaBus::new("vdpa"),
            before,
        }
    }

    /// With the driver, which has taken all cards.
    pub(crate) fn probed(plans: impl IntoIterator<Item = Plan>) -> (Self, Vec<Arc<VdpaClaim>>) {
        let bench = Self::new(plans);
        bench.probe();
        let devices = bench.held();
        assert_eq!(devices.len(), bench.cards.len(), "every card is driven");
        (bench, devices)
    }

    /// The devices on the bus, which belong to the test.
    pub(crate) fn held(&self) -> Vec<Arc<VdpaClaim>> {
        let devices = self.vdpa.devices();
        let held = devices
            .iter()
            .map(|device| self.run(hold(&self.vdpa, device)));
        held.map(|device| Arc::new(device.unwrap())).collect()
    }

    /// The same with one card.
    pub(crate) fn one(plan: Plan) -> (Self, Arc<VdpaClaim>) {
        let (bench, mut devices) = Self::probed([plan]);
        (bench, devices.remove(0))
    }

    /// Registers the driver, which probes.
    pub(crate) fn probe(&self) {
        let (platform, vdpa) = (self.machine.platform(), &self.vdpa);
        let ifcvf = Ifcvf::new(Arc::clone(&platform), Arc::clone(vdpa));
        self.run(self.machine.pci.add_driver(Arc::new(ifcvf)))
            .unwrap();
        if self.is_plain(0) {
            let plain = VpVdpa::new(platform, Arc::clone(vdpa));
            self.run(self.machine.pci.add_driver(Arc::new(plain)))
                .unwrap();
        }
    }

    /// Whether a card is none of Intel's.
    fn is_plain(&self, card: usize) -> bool {
        self.function(card).identity().subvendor != 0x8086
    }

    /// The driver's device on a card, without a bus.
    pub(crate) async fn parent(&self, card: usize) -> Result<Parent, ProbeError> {
        let function = self.function(card);
        if self.is_plain(card) {
            let device_type = u32::from(function.identity().device - 0x1040);
            return vp_vdpa::probe(&function, &self.machine.platform(), device_type).await;
        }
        let driver = Ifcvf::new(self.machine.platform(), VdpaBus::new("vdpa"));
        let rows = driver.ids().iter();
        let mut rows = rows.filter(|row| row.matches(function.identity()));
        let row = rows.next().expect("a row for the card");
        probe(&function, &self.machine.platform(), row).await
    }

    pub(crate) fn function(&self, card: usize) -> Arc<PciDevice> {
        self.machine
            .device(&format!("pci0000:00:{:02x}.0", card + 1))
    }

    pub(crate) fn card(&self) -> &Arc<Card> {
        &self.cards[0]
    }

    pub(crate) fn platform(&self) -> &Arc<FakePlatform> {
        &self.machine.platform
    }

    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        self.machine.platform.block_on(future)
    }

    /// The probe has failed and left nothing behind.
    #[track_caller]
    pub(crate) fn assert_refused(&self) {
        self.probe();
        assert!(self.vdpa.devices().is_empty());
        self.assert_untouched();
        self.function(0).claim().unwrap();
    }

    /// The card is as it was before there was a driver, and nothing is taken.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        assert_eq!(self.machine.pci.driver_of(&self.function(0)), None);
        assert_eq!(self.card().snapshot(), self.before[0]);
        assert_eq!(self.platform().vectors_in_use(), 0);
        assert_eq!(self.platform().heap().outstanding(), 0);
    }

    /// No driver did what it must not.
    #[track_caller]
    pub(crate) fn assert_lawful(&self) {
        for card in &self.cards {
            assert_eq!(card.violations(), Vec::<String>::new());
        }
    }
}

/// A card that works by itself until nobody but its worker knows it.
fn card(platform: &Arc<FakePlatform>, plan: Plan, disk: Box<dyn Storage>) -> Arc<Card> {
    let function = match plan.product.kind() {
        Kind::Net => Function::Net(Box::<Loopback>::default()),
        Kind::Blk => Function::Blk(disk),
    };
    let memory = Arc::new(HeapMemory::new(platform.heap()));
    let host = Arc::new(Controller(Arc::downgrade(platform)));
    let card = Card::new(plan, function, memory, host).unwrap();
    let (clock, worker) = (Arc::clone(platform), Arc::downgrade(&card));
    let task = async move {
        while let Some(card) = worker.upgrade() {
            while card.serve() == Served::More {}
            drop(card);
            clock.sleep(LOOK).await;
        }
    };
    platform.spawn("card", Box::pin(task));
    card
}
