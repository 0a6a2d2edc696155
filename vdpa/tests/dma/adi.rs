//! Parts of a function, each with a PASID of its own: assignable device interfaces.

use std::sync::Arc;

use vdpa::device::{DeviceKind, RegisterError, VdpaBus, VdpaDevice, VdpaDeviceConfig};
use vdpa::dma::{IsolationUnit, Owner, Trust};
use vdpa::iotlb::IovaRange;
use vdpa::keeper::hold;
use vdpa::testing::{FakeIommu, FakeParent, FakePlatform, Traits, Translation};
use vdpa::{Features, Node, Platform};
use virtq::SharedMemory;

use crate::world::{PAGE, RW, backing};

const FUNCTION: u32 = 0x28;
/// How many parts a function is cut into.
const PARTS: u32 = if cfg!(miri) { 8 } else { 512 };

struct Card {
    platform: Arc<FakePlatform>,
    iommu: Arc<FakeIommu>,
    bus: Arc<VdpaBus>,
    _root: Arc<Node>,
    function: Arc<Node>,
}

impl Card {
    fn new() -> Self {
        let iommu = FakeIommu::new();
        let root = Node::root("root");
        Self {
            platform: FakePlatform::with_iommu(&iommu),
            iommu,
            bus: VdpaBus::new("vdpa"),
            function: Node::child(&root, "pci0000:00:05.0"),
            _root: root,
        }
    }

    fn part(
        &self,
        user_id: u32,
        translation: Translation,
        pasid: Option<u32>,
    ) -> Result<Arc<VdpaDevice>, RegisterError> {
        let traits = Traits {
            translation,
            ..Traits::default()
        };
        let features = Features::from(virtio::F::ACCESS_PLATFORM);
        let parent =
            FakeParent::with_traits(&self.platform, 1, features, &[64, 64], &[0; 12], traits);
        let config = VdpaDeviceConfig {
            parent: Arc::clone(&self.function),
            dma: IsolationUnit::new(&self.function, Some(FUNCTION), pasid),
            platform: Arc::clone(&self.platform) as Arc<dyn Platform>,
            kind: DeviceKind::Adi {
                owner: Arc::clone(&self.function),
                user_id,
            },
            name: None,
        };
        let registered = self.bus.register(parent.ops(), config);
        self.platform.block_on(registered)
    }

    fn memory(&self) -> SharedMemory {
        SharedMemory::new(&self.platform.dma(), 0x1000).unwrap()
    }
}

#[test]
fn clients_have_parts_of_one_function_and_reach_their_own_memory_alone() {
    let card = Card::new();
    let page = |page: u64| IovaRange::new(0x10_0000 + page * PAGE, PAGE).unwrap();
    let parts: Vec<_> = (1..4)
        .map(|pasid| {
            let device = card.part(pasid, Translation::Platform, Some(pasid));
            let device = device.unwrap();
            let device = card.platform.block_on(hold(&card.bus, &device)).unwrap();
            let attached = device.attach(Owner::Client, Trust::Isolated).unwrap();
            let memory = card.memory();
            let to = backing(&memory, 0);
            attached.map(0, page(pasid.into()), RW, to).unwrap();
            (pasid, attached, memory)
        })
        .collect();
    for (pasid, attached, memory) in &parts {
        for (other, ..) in &parts {
            let addr = page((*other).into()).first();
            let found = card.iommu.access(FUNCTION, Some(*pasid), addr, RW);
            let own = memory.platform_addr().filter(|_| other == pasid);
            assert_eq!(found, own, "{pasid} at the page of {other}");
        }
        assert_eq!(attached.dma_faults().count, 2);
    }
}

#[test]
fn a_part_of_a_function_is_shown_with_its_owner_and_its_number() {
    let card = Card::new();
    let devices: Vec<_> = (0..PARTS)
        .map(|number| {
            card.part(number, Translation::Platform, Some(number))
                .unwrap()
        })
        .collect();
    assert_eq!(card.function.children().len(), devices.len());
    for (number, device) in devices.iter().enumerate() {
        let path = format!("pci0000:00:05.0 -> vdpa{number}");
        assert_eq!(device.node().path(), path);
        let facts = device.node().report().unwrap().facts;
        for fact in [
            ("kind", format!("Adi {number} of pci0000:00:05.0")),
            ("PASID", format!("{number}")),
        ] {
            assert!(facts.contains(&fact), "{facts:?}");
        }
    }
}

/// Its requests would look like those of the others.
#[test]
fn a_part_that_cannot_be_told_from_the_others_is_refused() {
    let card = Card::new();
    let refused = card.part(1, Translation::Platform, None).err();
    assert_eq!(refused, Some(RegisterError::NoPasid));
    assert!(card.function.children().is_empty());
    // One that translates its addresses itself needs none.
    assert!(card.part(1, Translation::Incremental, None).is_ok());
}
