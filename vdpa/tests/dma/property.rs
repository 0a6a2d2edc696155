//! Any sequence of changes, with any of them refused by the device, against a table of pages.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use vdpa::device::Attachment;
use vdpa::dma::{DmaSpace, MapTarget};
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::{Backing, OpError};
use virtq::{DmaBuffer, SharedMemory};

use crate::world::{Model, PAGE, World, backing};

/// How many pages of the address space are used.
const PAGES: usize = 24;

#[derive(Clone, Copy, Debug)]
enum Change {
    Map(u64, u64, Permission, u64),
    Unmap(u64, u64),
    Begin,
    End,
    Reset,
}

/// What is mapped at each page: how, and to which page of the memory.
type Pages = Vec<Option<(Permission, u64)>>;

struct Reference {
    pages: Pages,
    /// What was mapped when the batch began.
    batch: Option<Pages>,
}

fn change() -> impl Strategy<Value = Change> {
    let permission = prop_oneof![
        3 => Just(Permission::all()),
        3 => Just(Permission::READ),
        1 => Just(Permission::empty()),
    ];
    let pages = PAGES as u64;
    prop_oneof![
        8 => (0..pages, 1u64..6, permission, 0..pages)
            .prop_map(move |(page, len, how, from)| Change::Map(page, len.min(pages - page), how, from)),
        5 => (0..pages, 1u64..12).prop_map(|(page, len)| Change::Unmap(page, len)),
        1 => Just(Change::Begin),
        1 => Just(Change::End),
        1 => Just(Change::Reset),
    ]
}

fn translated() -> impl Strategy<Value = Model> {
    prop_oneof![
        Just(Model::Incremental),
        Just(Model::Whole),
        Just(Model::Iommu)
    ]
}

impl Reference {
    fn new() -> Self {
        Self {
            pages: vec![None; PAGES],
            batch: None,
        }
    }

    /// The pages of a range; what lies beyond is never mapped.
    fn slice(&mut self, page: u64, len: u64) -> &mut [Option<(Permission, u64)>] {
        let first = usize::try_from(page).unwrap();
        let end = usize::try_from(page + len).unwrap().min(PAGES);
        &mut self.pages[first..end]
    }

    fn map(&mut self, page: u64, len: u64, how: Permission, from: u64) -> Result<(), OpError> {
        if from + len > PAGES as u64 {
            return Err(OpError::OutOfRange);
        }
        if how.is_empty() {
            return Err(OpError::Invalid);
        }
        let pages = self.slice(page, len);
        if pages.iter().any(Option::is_some) {
            return Err(OpError::Overlap);
        }
        for (page, from) in pages.iter_mut().zip(from..) {
            *page = Some((how, from));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), OpError> {
        match change {
            Change::Map(page, len, how, from) => self.map(page, len, how, from)?,
            Change::Unmap(page, len) => self.slice(page, len).fill(None),
            Change::Begin if self.batch.is_some() => return Err(OpError::WrongState),
            Change::Begin => self.batch = Some(self.pages.clone()),
            Change::End => drop(self.batch.take().ok_or(OpError::WrongState)?),
            Change::Reset => {
                self.pages.fill(None);
                self.batch = None;
            }
        }
        Ok(())
    }

    /// The device has refused the change, or the batch that it ends.
    fn refuse(&mut self, change: Change) {
        if let Change::End = change
            && let Some(before) = self.batch.take()
        {
            self.pages = before;
        }
    }
}

fn apply(
    world: &World,
    attachment: &Attachment,
    memory: &SharedMemory,
    change: Change,
) -> Result<(), OpError> {
    let range = |page, len| world.range(memory, page, len);
    match change {
        Change::Map(page, len, how, from) => {
            attachment.map(0, range(page, len), how, backing(memory, from))
        }
        Change::Unmap(page, len) => attachment.unmap(0, range(page, len)).map(drop),
        Change::Begin => attachment.begin_batch(0),
        Change::End => attachment.end_batch(0),
        Change::Reset => attachment.reset_map(0),
    }
}

/// The pages that the owner has mapped.
fn owners(world: &World, attachment: &Attachment, memory: &SharedMemory) -> Pages {
    let at = |page: usize| world.range(memory, page as u64, 1).first();
    let look = |page| {
        attachment
            .with_table(0, |table| {
                let mapping = table.translate(at(page), Permission::empty()).ok()?;
                let Backing { memory: to, offset } = mapping.target;
                assert!(to.is_same(memory));
                let inside = at(page) - mapping.range.first();
                Some((mapping.permission, (offset + inside) / PAGE))
            })
            .unwrap()
    };
    (0..PAGES).map(look).collect()
}

/// The pages that the device reaches, and how.
fn devices(world: &World, memory: &SharedMemory) -> Vec<Option<Permission>> {
    let reachable = world.reachable(0);
    let at = |page: usize| world.range(memory, page as u64, 1).first();
    let find = |addr| {
        let mapped = reachable.iter().find(|(a, b, _)| (*a..=*b).contains(&addr));
        mapped.map(|mapped| mapped.2)
    };
    (0..PAGES).map(|page| find(at(page))).collect()
}

fn check(world: &World, attachment: &Attachment, memory: &SharedMemory, reference: &Reference) {
    assert_eq!(owners(world, attachment, memory), reference.pages);
    let mapped = reference.pages.iter().flatten().count() as u64;
    assert_eq!(attachment.mapped_bytes(), mapped * PAGE);
    let told = match &reference.batch {
        Some(before) if world.model != Model::Incremental => before,
        _ => &reference.pages,
    };
    let told: Vec<_> = told.iter().map(|page| page.map(|page| page.0)).collect();
    assert_eq!(devices(world, memory), told);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { ProptestConfig::default().cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_change_happens_completely_or_not_at_all(
        model in translated(),
        changes in vec((change(), prop::bool::weighted(0.3)), 1..40),
    ) {
        let world = World::new(model);
        let attachment = world.attach().unwrap();
        let memory = world.memory(PAGES as u64);
        let mut reference = Reference::new();
        for (change, refuse) in changes {
            if refuse {
                world.fail_after(0);
            }
            let result = apply(&world, &attachment, &memory, change);
            let refused = refuse && !world.take_fault();
            if refused {
                prop_assert_eq!(result, Err(OpError::Timeout));
                reference.refuse(change);
            } else {
                prop_assert_eq!(result, reference.change(change));
            }
            check(&world, &attachment, &memory, &reference);
        }
        drop(attachment);
        drop(memory);
        prop_assert_eq!(world.platform.heap().outstanding(), 0);
    }

    #[test]
    fn memory_of_a_driver_is_where_it_was_on_whichever_device_it_is(
        steps in vec((0usize..8, 0usize..0x3000, prop::bool::weighted(0.2)), 1..40),
    ) {
        let worlds = [World::new(Model::Incremental), World::new(Model::Whole)];
        let attachments = worlds.each_ref().map(|world| world.attach().unwrap());
        let target = |at: usize| Arc::clone(&attachments[at]) as Arc<dyn MapTarget>;
        let space = DmaSpace::new(&worlds[0].as_platform());
        let dma = space.allocator();
        let mut at = 0;
        space.attach(target(at)).unwrap();
        let mut buffers: Vec<DmaBuffer> = Vec::new();
        for (step, number, refuse) in steps {
            let other = 1 - at;
            match step {
                0..4 => {
                    if refuse {
                        worlds[at].fail_after(0);
                    }
                    let buffer = DmaBuffer::new(&dma, number + 1);
                    prop_assert_eq!(buffer.is_err(), refuse);
                    buffers.extend(buffer);
                }
                4..7 if !buffers.is_empty() => {
                    buffers.swap_remove(number % buffers.len());
                }
                7 => {
                    // What the other device has from earlier is not what it will have.
                    attachments[other].reset_map(0).unwrap();
                    if refuse {
                        worlds[other].fail_after(0);
                    }
                    let result = space.attach(target(other));
                    let refused = refuse && !worlds[other].take_fault();
                    prop_assert_eq!(result.is_err(), refused);
                    if refused {
                        prop_assert_eq!(attachments[other].mapped_bytes(), 0);
                    } else {
                        at = other;
                    }
                }
                _ => {}
            }
            let mut expected: Vec<_> = buffers
                .iter()
                .map(|buffer| IovaRange::new(buffer.addr().0, buffer.len() as u64).unwrap())
                .map(|range| (range.first(), range.last(), Permission::all()))
                .collect();
            expected.sort_by_key(|mapped| mapped.0);
            prop_assert_eq!(worlds[at].reachable(0), expected);
        }
        drop(buffers);
        space.detach();
        drop(attachments);
        prop_assert_eq!(worlds[0].platform.heap().outstanding(), 0);
    }
}
