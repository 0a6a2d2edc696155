//! The PCI configuration space.

use ifcvf_card::{Card, Function, ListFault, Loopback, Place, Plan, PlanError, Product, VirtioCap};
use virtq::testing::{HeapDma, HeapMemory};

use crate::slot::{BASES, ON, Slot};

/// Id and place of each capability, in the order of the list.
fn capabilities(slot: &Slot) -> Vec<(u8, u16)> {
    let mut list = Vec::new();
    let mut at = slot.config16(0x34) & 0xff;
    while at != 0 {
        assert!(at >= 0x40 && at.is_multiple_of(4) && list.len() < 48);
        let [id, next] = slot.config16(at).to_le_bytes();
        list.push((id, at));
        at = next.into();
    }
    list
}

#[test]
fn every_product_has_its_ids_and_its_class() {
    let known = [
        (Product::N3000Net, 0x1041, 0x001a, 0x02),
        (Product::C5000xNet, 0x1000, 0x0001, 0x02),
        (Product::C5000xBlk, 0x1001, 0x0002, 0x01),
        (Product::ModernBlk, 0x1042, 0x0002, 0x01),
        (Product::ModernBlkDefault, 0x1042, 0x0000, 0x01),
    ];
    assert_eq!(Product::ALL, known.map(|(product, ..)| product));
    for (product, device, subdevice, class) in known {
        let slot = Slot::of(product);
        let read = [0x00, 0x02, 0x2c, 0x2e].map(|offset| slot.config16(offset));
        assert_eq!(read, [0x1af4, device, 0x8086, subdevice], "{product}");
        assert_eq!(slot.config32(8) >> 24, class, "{product}");
        // Transitional devices have revision 0 (VIRTIO 1.2, 4.1.2.1).
        let revision = slot.config16(8) & 0xff;
        assert_eq!(revision == 0, device < 0x1040, "{product}");
        assert_eq!(product.name().parse(), Ok(product));
    }
    assert!("n3000".parse::<Product>().is_err());
}

#[test]
fn bars_tell_their_size_and_keep_their_address() {
    let slot = Slot::of(Product::N3000Net);
    for (bar, base) in [0_u8, 2, 4].into_iter().zip(BASES) {
        let at = 0x10 + 4 * u16::from(bar);
        assert_eq!(slot.card.bar_address(bar), Some(base));
        slot.card.write_config(at, &[0xff; 8]);
        let low = u64::from(slot.config32(at));
        let high = u64::from(slot.config32(at + 4));
        assert_eq!(low & 0xf, 0xc, "64 bits, prefetchable");
        let size = !(high << 32 | low & !0xf) + 1;
        assert_eq!(size, slot.card.bar_size(bar));
        assert!(size.is_power_of_two() && size >= 4096);
        slot.card.write_config(at, &base.to_le_bytes());
        assert_eq!(slot.card.bar_address(bar), Some(base));
    }
    for bar in [1, 3, 5] {
        assert_eq!(slot.card.bar_size(bar), 0);
    }
    slot.card.write_config(0x30, &[0xff; 4]);
    assert_eq!(slot.config32(0x30), 0, "there is no expansion ROM");
}

#[test]
fn only_the_bits_that_exist_can_be_written() {
    let slot = Slot::of(Product::ModernBlk);
    slot.card.write_config(4, &[0xff; 2]);
    assert_eq!(slot.config16(4), 0x0406);
    let before = slot.card.snapshot();
    for offset in (0x40..0x1000).step_by(4) {
        slot.card.write_config(offset, &[0; 4]);
    }
    for offset in [0x00, 0x06, 0x08, 0x2c, 0x34] {
        slot.card.write_config(offset, &[0xff; 2]);
    }
    assert_eq!(slot.card.snapshot(), before);
}

#[test]
fn registers_answer_only_while_memory_decode_is_on() {
    let slot = Slot::of(Product::N3000Net);
    assert_eq!(slot.read16(0, 0x12), 5);
    slot.card.write_config(4, &0_u16.to_le_bytes());
    assert_eq!(slot.card.bar_address(0), None);
    assert_eq!(slot.read16(0, 0x12), 0xffff);
    slot.card.write_config(4, &ON.to_le_bytes());
    assert_eq!(slot.read16(0, 0x12), 5);
}

#[test]
fn the_capabilities_say_where_everything_is() {
    for place in [Place::Bar0, Place::Bar4] {
        let slot = Slot::new(Plan {
            place,
            ..Plan::new(Product::N3000Net)
        });
        let list = capabilities(&slot);
        let ids: Vec<_> = list.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [0x11, 9, 9, 9, 9, 0x10]);
        let bar = if place == Place::Bar0 { 0 } else { 4 };
        for (kind, (_, at)) in (1..).zip(&list[1..5]) {
            let [cap_len, cfg_type] = slot.config16(at + 2).to_le_bytes();
            assert_eq!((cap_len, cfg_type), (if kind == 2 { 20 } else { 16 }, kind));
            assert_eq!(slot.config32(at + 4), bar);
            let end = slot.config32(at + 8) + slot.config32(at + 12);
            assert!(u64::from(end) <= slot.card.bar_size(u8::try_from(bar).unwrap()));
        }
        let notify = list[2].1;
        assert_eq!(slot.config32(notify + 16), 4);
        // MSI-X: the last entry's number, and everything in BAR 2.
        let msix = list[0].1;
        assert_eq!(slot.config16(msix + 2) & 0x7ff, slot.card.vectors() - 1);
        assert_eq!([4, 8].map(|word| slot.config32(msix + word) & 7), [2, 2]);
        let block = slot.card.bar_size(4) > 0;
        assert!(block, "BAR 4 is the block, or the structures");
        assert_eq!(slot.card.bar_size(0) > 0, place == Place::Bar0);
    }
}

#[test]
fn the_list_can_be_wrong() {
    let fault = |list| {
        let plan = Plan::new(Product::N3000Net);
        Slot::new(Plan { list, ..plan })
    };
    let cyclic = fault(ListFault::Cycle);
    let first = cyclic.config16(0x34).to_le_bytes()[0];
    let at_last = |slot: &Slot| {
        let (_, at) = *capabilities(&fault(ListFault::None)).last().unwrap();
        slot.config16(at).to_le_bytes()[1]
    };
    assert_eq!(at_last(&cyclic), first);
    assert_eq!(at_last(&fault(ListFault::Misplaced)), 0x10);
}

#[test]
fn a_function_level_reset_takes_everything_back() {
    let slot = Slot::of(Product::N3000Net);
    let list = capabilities(&slot);
    let express = list.last().unwrap().1;
    assert_eq!(slot.config32(express + 4) >> 28 & 1, 1, "it can be reset");
    slot.set_status(1);
    slot.write32(4, 0x20, 7);
    slot.card
        .write_config(list[0].1 + 2, &0x8000_u16.to_le_bytes());
    slot.card
        .write_config(express + 8, &0x8000_u16.to_le_bytes());
    assert_eq!(slot.config16(express + 8), 0, "the bit always reads 0");
    assert_eq!(slot.config16(4), 0);
    assert_eq!(slot.config32(0x14), 0);
    assert_eq!(slot.config16(list[0].1 + 2) & 0xc000, 0);
    slot.card.write_config(4, &ON.to_le_bytes());
    assert_eq!(slot.status(), 0);
    assert_eq!(slot.read32(4, 0x20), 0);
    assert_eq!(slot.card.counters().function_resets, 1);
}

#[test]
fn plans_that_make_no_card_are_refused() {
    let make = |plan: Plan| {
        let memory = std::sync::Arc::new(HeapMemory::new(&HeapDma::new()));
        let host = std::sync::Arc::<crate::slot::Arrived>::default();
        let wire = Function::Net(Box::<Loopback>::default());
        Card::new(plan, wire, memory, host).map(|_| ())
    };
    let net = Plan::new(Product::N3000Net);
    let changed = |change: &dyn Fn(&mut Plan)| {
        let mut plan = net.clone();
        change(&mut plan);
        make(plan)
    };
    assert_eq!(make(net.clone()), Ok(()));
    assert_eq!(
        make(Plan::new(Product::ModernBlk)),
        Err(PlanError::Function)
    );
    assert_eq!(changed(&|plan| plan.queues = 0), Err(PlanError::Queues));
    assert_eq!(changed(&|plan| plan.queues = 33), Err(PlanError::Queues));
    assert_eq!(
        changed(&|plan| plan.queue_size = 100),
        Err(PlanError::QueueSize)
    );
    assert_eq!(changed(&|plan| plan.vectors = 257), Err(PlanError::Vectors));
    let capability = VirtioCap {
        kind: 1,
        cap_len: 16,
        bar: 0,
        offset: 0,
        length: 64,
        multiplier: 0,
    };
    let many = Some(vec![capability; 16]);
    let refused = changed(&|plan| plan.capabilities.clone_from(&many));
    assert_eq!(refused, Err(PlanError::Capabilities));
}
