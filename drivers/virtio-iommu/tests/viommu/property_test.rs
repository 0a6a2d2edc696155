//! Changes of a domain against a naive map of pages, with an IOMMU that refuses now and then.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use vdpa::iotlb::Permission;
use vdpa::platform::{DomainChange, IommuDomain};
use virtio::F;
use virtq::DmaAddr;

use crate::model::{NO_MEMORY, READ, Reaction, WRITE};
use crate::world::{Setup, World, range};

/// The pages that are looked at.
const PAGES: u64 = 24;
const PAGE: u64 = 0x1000;

/// What each page leads to, and how.
type Naive = BTreeMap<u64, (u64, u32)>;

#[derive(Clone, Copy, Debug)]
enum Change {
    Map(u64, u64, u64, u32),
    Unmap(u64, u64),
}

fn change() -> impl Strategy<Value = Change> {
    let pages = (0..PAGES, 1..8u64);
    prop_oneof![
        3 => (pages.clone(), 0..64u64, 1..4u32)
            .prop_map(|((first, len), addr, flags)| Change::Map(first, len, addr, flags)),
        2 => pages.prop_map(|(first, len)| Change::Unmap(first, len)),
    ]
}

impl Change {
    fn real(self) -> DomainChange {
        let pages = |first: u64, len: u64| range(first * PAGE, (first + len) * PAGE - 1);
        match self {
            Self::Map(first, len, addr, flags) => DomainChange::Map {
                range: pages(first, len),
                permission: Permission::from_bits_truncate(flags as u8),
                addr: DmaAddr(addr * PAGE),
            },
            Self::Unmap(first, len) => DomainChange::Unmap(pages(first, len)),
        }
    }

    /// False, if it cannot be done.
    fn naive(self, map: &mut Naive) -> bool {
        match self {
            Self::Map(first, len, addr, flags) => {
                if (first..first + len).any(|page| map.contains_key(&page)) {
                    return false;
                }
                map.extend((0..len).map(|page| (first + page, (addr + page, flags))));
            }
            Self::Unmap(first, len) => map.retain(|page, _| !(first..first + len).contains(page)),
        }
        true
    }
}

/// What the endpoint reaches, page by page.
fn reached(world: &World) -> Naive {
    let page = |page: u64| {
        let access = |flag| world.model.access(0x10, page * PAGE, flag);
        let (read, write) = (access(READ), access(WRITE));
        let flags = read.map_or(0, |_| READ) | write.map_or(0, |_| WRITE);
        Some((page, (read.or(write)? / PAGE, flags)))
    };
    (0..PAGES + 8).filter_map(page).collect()
}

/// Makes the changes of a batch, as the IOMMU lets it; returns what must be mapped.
fn make(domain: &dyn IommuDomain, batch: &[Change], before: &Naive) -> (Naive, bool) {
    let mut after = before.clone();
    let possible = batch.iter().all(|change| change.naive(&mut after));
    let changes: Vec<_> = batch.iter().map(|change| change.real()).collect();
    let result = domain.change(&changes);
    if !possible {
        assert!(result.is_err());
    }
    let made = result.is_ok();
    (if made { after } else { before.clone() }, made)
}

proptest! {
    #[test]
    fn an_endpoint_reaches_what_a_naive_map_says(
        batches in vec((vec(change(), 1..6), 0..12usize), 1..12),
        backward: bool,
        enter_late: bool,
        ring in 0..4usize,
        queue in prop_oneof![Just(2u16), Just(8), Just(64)],
    ) {
        let mut setup = Setup::default();
        setup.traits.backward = backward;
        setup.ring = [F::empty(), F::INDIRECT_DESC, F::RING_PACKED, F::EVENT_IDX][ring];
        setup.queue_sizes[0] = queue;
        let world = setup.start();
        let unit = world.unit(&[0x10]);
        let domain = world.iommus.isolate(&unit).unwrap();
        if !enter_late {
            domain.enter().unwrap();
        }
        let mut expected = Naive::new();
        let late = batches.len() / 2;
        for (index, (batch, refuse)) in batches.iter().enumerate() {
            if index == late && enter_late {
                domain.enter().unwrap();
            }
            // One request is refused, the last possible ones of a batch never.
            let mut left = *refuse;
            world.model.script(move |_| {
                left = left.wrapping_sub(1);
                if left == 0 { Reaction::Refuse(NO_MEMORY) } else { Reaction::Honest }
            });
            let (now, _) = make(&*domain, batch, &expected);
            expected = now;
            world.model.be_honest();
            if !enter_late || index >= late {
                prop_assert_eq!(&reached(&world), &expected);
            }
            world.platform.run_until_stalled();
        }
        let pages = u64::try_from(expected.len()).unwrap();
        if pages == 0 {
            prop_assert_eq!(world.fact("mapped"), "0 B");
        }
        drop(domain);
        prop_assert_eq!(reached(&world), Naive::new());
        prop_assert_eq!(world.model.domain_of(0x10), None);
    }
}
