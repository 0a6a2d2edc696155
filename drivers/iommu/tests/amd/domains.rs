//! What devices reach.

use std::sync::Arc;

use iommu::Iommu;
use vdpa::Node;
use vdpa::dma::IsolationUnit;
use vdpa::iotlb::IovaRange;
use vdpa::platform::{DomainChange, DomainError};
use vdpa::testing::HeapDma;

use crate::bench::{
    ALIAS, ALIASED, BOTH, Bench, QEMU, READ, WRITE, device, entered, fact, map, range, unmap,
};
use crate::fake::{IA_SUP, Model};

const FORGETS_ABSENCE: Model = Model {
    features: IA_SUP,
    np_cache: false,
};

#[test]
fn a_device_in_no_domain_reaches_nothing() {
    let (bench, iommu) = Bench::on(QEMU);
    for device in [0, 0x8, 0x2ff, ALIAS, 0xffff] {
        for addr in [0, 0x1000, 0xfee0_0000, 1 << 47] {
            assert_eq!(bench.access(device, addr, READ), None);
            assert_eq!(bench.access(device, addr, WRITE), None);
        }
    }
    // Nor with a domain that it has not entered.
    let domain = iommu.domain(&device(0x8)).unwrap();
    domain.change(&[map(0x1000, 0x1000, BOTH, 0x5000)]).unwrap();
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
    domain.enter().unwrap();
    assert_eq!(bench.access(0x8, 0x1000, READ), Some(0x5000));
}

#[test]
fn a_device_reaches_what_is_mapped_as_is_permitted() {
    for model in [QEMU, FORGETS_ABSENCE] {
        let (bench, iommu) = Bench::on(model);
        let domain = entered(&iommu, &device(0x8));
        // The IOMMU may remember that nothing was there.
        assert_eq!(bench.access(0x8, 0x1000, READ), None);
        let changes = [
            map(0x1000, 0x2000, BOTH, 0x1_5000),
            map(0x3000, 0x1000, READ, 0x5000),
            map(0x4000, 0x1000, WRITE, 0x6000),
        ];
        domain.change(&changes).unwrap();
        assert_eq!(bench.access(0x8, 0x1000, READ), Some(0x1_5000));
        assert_eq!(bench.access(0x8, 0x2fff, WRITE), Some(0x1_6fff));
        assert_eq!(bench.access(0x8, 0x3010, READ), Some(0x5010));
        assert_eq!(bench.access(0x8, 0x3010, WRITE), None);
        assert_eq!(bench.access(0x8, 0x4010, WRITE), Some(0x6010));
        assert_eq!(bench.access(0x8, 0x4010, READ), None);
        assert_eq!(bench.access(0x8, 0x5000, READ), None);
        assert_eq!(bench.access(0x8, 0xfff, READ), None);
    }
}

#[test]
fn what_is_taken_away_is_forgotten() {
    let (bench, iommu) = Bench::on(FORGETS_ABSENCE);
    let domain = entered(&iommu, &device(0x8));
    domain.change(&[map(0x1000, 0x8000, BOTH, 0x1000)]).unwrap();
    let reached = || {
        let pages = (1..10_u64).filter(|page| bench.access(0x8, page << 12, WRITE).is_some());
        pages.collect::<Vec<_>>()
    };
    assert_eq!(reached(), [1, 2, 3, 4, 5, 6, 7, 8]);
    domain.change(&[unmap(0x3000, 0x1000)]).unwrap();
    assert_eq!(reached(), [1, 2, 4, 5, 6, 7, 8]);
    domain
        .change(&[unmap(0x5000, 0x3000), map(0x3000, 0x1000, BOTH, 0x9000)])
        .unwrap();
    assert_eq!(reached(), [1, 2, 3, 4, 8]);
    assert_eq!(bench.access(0x8, 0x3000, READ), Some(0x9000));
    // Elsewhere in one batch.
    domain
        .change(&[unmap(0x1000, 0x1000), map(0x1000, 0x1000, READ, 0xb000)])
        .unwrap();
    assert_eq!(bench.access(0x8, 0x1000, READ), Some(0xb000));
    assert_eq!(bench.access(0x8, 0x1000, WRITE), None);
    domain
        .change(&[DomainChange::Unmap(IovaRange::ALL)])
        .unwrap();
    assert_eq!(reached(), [0; 0]);
}

#[test]
fn large_pages_are_cut_and_their_tables_given_back() {
    let (bench, iommu) = Bench::on(FORGETS_ABSENCE);
    let domain = entered(&iommu, &device(0x8));
    let before = bench.platform.heap().outstanding();
    let (giant, large) = (1 << 30, 2 << 20);
    domain
        .change(&[map(giant, 2 * giant, BOTH, 4 * giant)])
        .unwrap();
    assert_eq!(bench.access(0x8, 3 * giant - 1, WRITE), Some(6 * giant - 1));
    domain.change(&[unmap(giant + large, 0x1000)]).unwrap();
    assert_eq!(bench.access(0x8, giant + large, READ), None);
    let after = giant + large + 0x1000;
    assert_eq!(bench.access(0x8, after, READ), Some(after + 3 * giant));
    assert_eq!(bench.access(0x8, giant, READ), Some(4 * giant));
    domain.change(&[unmap(giant, 2 * giant)]).unwrap();
    assert_eq!(bench.platform.heap().outstanding(), before);
    // The IOMMU walks nothing that was given back.
    assert_eq!(bench.access(0x8, after, READ), None);
    domain.change(&[map(giant, 0x1000, READ, 0x7000)]).unwrap();
    assert_eq!(bench.access(0x8, giant, READ), Some(0x7000));
}

#[test]
fn two_domains_know_nothing_of_each_other() {
    let (bench, iommu) = Bench::on(QEMU);
    let first = entered(&iommu, &device(0x8));
    let second = entered(&iommu, &device(0x10));
    first.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
    assert_eq!(bench.access(0x8, 0x1000, READ), Some(0xa000));
    assert_eq!(bench.access(0x10, 0x1000, READ), None);
    second.change(&[map(0x1000, 0x1000, BOTH, 0xb000)]).unwrap();
    assert_eq!(bench.access(0x10, 0x1000, READ), Some(0xb000));
    first.change(&[unmap(0x1000, 0x1000)]).unwrap();
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
    assert_eq!(bench.access(0x10, 0x1000, READ), Some(0xb000));
}

#[test]
fn who_has_left_reaches_nothing_and_neither_does_who_comes_next() {
    let (bench, iommu) = Bench::on(FORGETS_ABSENCE);
    let heap = bench.platform.heap();
    let before = heap.outstanding();
    let unit = device(0x8);
    let domain = entered(&iommu, &unit);
    domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
    assert_eq!(bench.access(0x8, 0x1000, WRITE), Some(0xa000));
    assert_eq!(fact(&iommu, "mapped bytes"), "4096");
    drop(domain);
    assert_eq!(fact(&iommu, "mapped bytes"), "0");
    assert_eq!(bench.access(0x8, 0x1000, READ), None);
    assert_eq!(heap.outstanding(), before);
    for id in [0x8, 0x10] {
        let next = entered(&iommu, &device(id));
        assert_eq!(bench.access(id, 0x1000, READ), None);
        drop(next);
    }
}

#[test]
fn devices_that_never_rest_reach_nothing_of_others_in_between() {
    for model in [QEMU, FORGETS_ABSENCE] {
        let (bench, iommu) = Bench::on(model);
        for id in [0x8, 0x10] {
            bench.fake.make_restless(id, 0x1000);
        }
        for (id, addr) in [(0x8, 0xa000), (0x10, 0xb000), (0x8, 0xa000)] {
            let domain = iommu.domain(&device(id)).unwrap();
            domain.change(&[map(0x1000, 0x1000, READ, addr)]).unwrap();
            domain.enter().unwrap();
            assert_eq!(bench.access(id, 0x1000, READ), Some(addr));
            drop(domain);
            assert_eq!(bench.access(id, 0x1000, READ), None);
        }
        assert_eq!(bench.fake.reached(0x8), [0xa000]);
        assert_eq!(bench.fake.reached(0x10), [0xb000]);
    }
}

#[test]
fn a_device_is_in_one_domain_at_a_time() {
    let (bench, iommu) = Bench::on(QEMU);
    let unit = device(0x8);
    let first = entered(&iommu, &unit);
    first.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
    let second = iommu.domain(&unit).unwrap();
    assert_eq!(second.enter(), Err(DomainError::OutOfResources));
    drop(second);
    assert_eq!(bench.access(0x8, 0x1000, READ), Some(0xa000));
    // Nor are two whose requests look alike in different ones.
    let alias = entered(&iommu, &device(ALIAS));
    let aliased = iommu.domain(&device(ALIASED)).unwrap();
    assert_eq!(aliased.enter(), Err(DomainError::OutOfResources));
    drop(alias);
    aliased.enter().unwrap();
}

#[test]
fn requests_may_come_with_the_id_of_another() {
    let (bench, iommu) = Bench::on(QEMU);
    let domain = entered(&iommu, &device(ALIASED));
    domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
    for id in [ALIAS, ALIASED] {
        assert_eq!(bench.access(id, 0x1000, READ), Some(0xa000));
    }
    drop(domain);
    for id in [ALIAS, ALIASED] {
        assert_eq!(bench.access(id, 0x1000, READ), None);
    }
}

#[test]
fn all_functions_of_a_unit_are_in_its_domain() {
    let (bench, iommu) = Bench::on(QEMU);
    let unit = IsolationUnit::of_requesters(&Node::root("pci"), vec![0x8, 0x9, 0x200], vec![0x18]);
    let domain = entered(&iommu, &unit);
    domain.change(&[map(0x1000, 0x1000, BOTH, 0xa000)]).unwrap();
    for (id, addr) in [(0x8, Some(0xa000)), (0x9, Some(0xa000)), (0x18, None)] {
        assert_eq!(bench.access(id, 0x1000, READ), addr);
    }
    assert_eq!(bench.access(0x200, 0x1000, READ), Some(0xa000));
}

#[test]
fn it_covers_the_devices_that_firmware_names() {
    let (_bench, iommu) = Bench::on(QEMU);
    let unit = |id| IsolationUnit::new(&Node::root("pci"), id, None);
    for (id, covered) in [
        (Some(0x8), true),
        (Some(ALIASED.into()), true),
        (Some(0x400), false),
        (Some(0x1_0008), false),
        (None, false),
    ] {
        assert_eq!(iommu.covers(&unit(id)), covered, "{id:x?}");
        assert_eq!(iommu.domain(&unit(id)).is_some(), covered, "{id:x?}");
    }
    // Address spaces of processes are no domains of the host's.
    let slice = IsolationUnit::new(&Node::root("pci"), Some(0x8), Some(3));
    assert!(iommu.covers(&slice) && iommu.domain(&slice).is_none());
}

#[test]
fn addresses_are_those_that_the_tables_hold() {
    let (bench, iommu) = Bench::on(QEMU);
    let domain = entered(&iommu, &device(0x8));
    let reserved = domain.reserved();
    assert_eq!(domain.iova_ranges(), [range(0x1000, (1 << 48) - 0x1000)]);
    for addr in [0xfee0_0000, 0xfeef_ffff, 0xfd_0000_0000, 0xff_ffff_ffff] {
        assert!(reserved.iter().any(|hole| hole.contains(range(addr, 1))));
    }
    let last = (1 << 48) - 0x1000;
    domain.change(&[map(last, 0x1000, READ, 0xa000)]).unwrap();
    assert_eq!(bench.access(0x8, last, READ), Some(0xa000));
    let beyond = map(1 << 48, 0x1000, READ, 0xa000);
    assert_eq!(domain.change(&[beyond]), Err(DomainError::OutOfResources));
    assert_eq!(bench.access(0x8, 1 << 48, READ), None);

    // Shorter addresses need fewer tables.
    let mut bench = Bench::new(QEMU);
    bench.table.info = 39 << 15 | 40 << 8;
    let iommu = bench.start().unwrap();
    let domain = entered(&iommu, &device(0x8));
    assert_eq!(domain.iova_ranges(), [range(0x1000, (1 << 39) - 0x1000)]);
    let last = (1 << 39) - 0x1000;
    domain.change(&[map(last, 0x1000, READ, 0xa000)]).unwrap();
    assert_eq!(bench.access(0x8, last, READ), Some(0xa000));
}

#[test]
fn wrong_changes_change_nothing() {
    let (bench, iommu) = Bench::on(QEMU);
    let domain = entered(&iommu, &device(0x8));
    let good = map(0x1000, 0x1000, BOTH, 0xa000);
    for (bad, error) in [
        (map(0x2000, 0x800, BOTH, 0), DomainError::Misaligned),
        (map(0x2000, 0x1000, BOTH, 0x10), DomainError::Misaligned),
        (unmap(0x1000, 0x10), DomainError::Misaligned),
        (map(0x1000, 0x1000, BOTH, 0), DomainError::OutOfResources),
    ] {
        assert_eq!(domain.change(&[good, bad]), Err(error));
        assert_eq!(bench.access(0x8, 0x1000, READ), None);
    }
    domain.change(&[good]).unwrap();
    assert_eq!(bench.access(0x8, 0x1000, READ), Some(0xa000));
}

#[test]
fn a_batch_is_waited_for_once() {
    let (bench, iommu) = Bench::on(QEMU);
    let domain = entered(&iommu, &device(0x8));
    let batch: Vec<_> = (1..4097_u64)
        .map(|page| map(page * 0x2000, 0x1000, BOTH, page << 12))
        .collect();
    let before = bench.fake.waits();
    domain.change(&batch).unwrap();
    domain.change(&[unmap(0x2000, 0x1000)]).unwrap();
    assert_eq!(bench.fake.waits(), before + 2);
    assert_eq!(bench.access(0x8, 0x2000, READ), None);
    assert_eq!(bench.access(0x8, 0x4000, READ), Some(0x2000));
}

#[test]
fn there_are_as_many_domains_as_anybody_wants() {
    let (bench, iommu) = Bench::on(QEMU);
    let mut domains = Vec::new();
    for id in 0x10..0x2ff {
        let domain = entered(&iommu, &device(id));
        let addr = u64::from(id) << 12;
        domain.change(&[map(0x1000, 0x1000, READ, addr)]).unwrap();
        domains.push(domain);
    }
    for id in 0x10..0x2ff_u16 {
        let addr = u64::from(id) << 12;
        assert_eq!(bench.access(id, 0x1000, READ), Some(addr));
    }
}

#[test]
fn short_memory_is_an_error_and_no_more() {
    let needed = {
        let (bench, _iommu) = Bench::on(QEMU);
        bench.platform.heap().outstanding()
    };
    for pages in 0..6 {
        let heap = HeapDma::limited(needed + pages * 0x1000);
        let bench = Bench::with_heap(QEMU, Arc::clone(&heap));
        let iommu = bench.start().unwrap();
        let Some(domain) = iommu.domain(&device(0x8)) else {
            assert_eq!(pages, 0);
            continue;
        };
        domain.enter().unwrap();
        let before = heap.outstanding();
        let far = [
            map(0x1000, 0x1000, BOTH, 0xa000),
            map(1 << 40, 0x1000, BOTH, 0xb000),
        ];
        // A root, and three tables for each of the two.
        assert_eq!(domain.change(&far), Err(DomainError::OutOfResources));
        assert_eq!(bench.access(0x8, 0x1000, READ), None);
        assert_eq!(heap.outstanding(), before);
    }
}
