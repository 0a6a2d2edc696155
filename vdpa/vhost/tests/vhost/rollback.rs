//! Random messages against a map of single pages, on a device that refuses some: what fails has
//! changed nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::ops::OpError;
use vdpa::testing::Translation;
use vhost_vdpa::{IotlbMessage, OpenOptions, VhostError};
use virtq::{DeviceMemory, SharedMemory};

use crate::world::{FIRST, World, translating};

const PAGE: u64 = 4096;
const PAGES: u64 = 12;
const SPACES: u16 = 2;
const QUOTA: u64 = 9;
const MAPPINGS: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Update {
        asid: u16,
        page: u64,
        pages: u64,
        permission: u8,
    },
    Invalidate {
        asid: u16,
        page: u64,
        pages: u64,
    },
    Begin(u16),
    End(u16),
    /// The device refuses its next but so many change.
    Refuse(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let asid = || 0..SPACES;
    let step = prop_oneof![
        4 => (asid(), 0..PAGES, 0..4u64, 0..4u8).prop_map(|(asid, page, pages, permission)| {
            Step::Update { asid, page, pages, permission }
        }),
        3 => (asid(), 0..PAGES, 0..4u64)
            .prop_map(|(asid, page, pages)| Step::Invalidate { asid, page, pages }),
        1 => asid().prop_map(Step::Begin),
        1 => asid().prop_map(Step::End),
        1 => (0..3usize).prop_map(Step::Refuse),
    ];
    prop::collection::vec(step, 1..60)
}

/// By page: the permission, and which update has mapped it.
type Space = BTreeMap<u64, (u8, usize)>;

#[derive(Clone, Default)]
struct Model {
    spaces: [Space; SPACES as usize],
    batch: Option<(u16, Space)>,
}

impl Model {
    fn pages(&self) -> u64 {
        self.spaces.iter().map(|space| space.len() as u64).sum()
    }

    /// How many mappings there are: runs of pages of one update.
    fn mappings(&self) -> usize {
        self.spaces.iter().map(|space| runs(space).len()).sum()
    }

    /// What has to be answered if the device refuses nothing, and the change itself.
    fn apply(&mut self, step: &Step, number: usize) -> Result<(), VhostError> {
        let before = self.clone();
        let (Step::Update { asid, .. }
        | Step::Invalidate { asid, .. }
        | Step::Begin(asid)
        | Step::End(asid)) = step
        else {
            return Ok(());
        };
        if self.batch.as_ref().is_some_and(|batch| batch.0 != *asid) {
            return Err(VhostError::Invalid);
        }
        let space = &mut self.spaces[usize::from(*asid)];
        match *step {
            Step::Update { pages: 0, .. } | Step::Invalidate { pages: 0, .. } => {
                Err(VhostError::EmptyRange)
            }
            Step::Update {
                page,
                pages,
                permission,
                ..
            } => {
                if permission == 0 {
                    return Err(VhostError::NoPermission);
                }
                if before.pages() + pages > QUOTA {
                    return Err(VhostError::OverQuota);
                }
                if before.mappings() >= MAPPINGS {
                    return Err(VhostError::TooManyMappings);
                }
                if (page..page + pages).any(|page| space.contains_key(&page)) {
                    return Err(VhostError::Exists);
                }
                space.extend((page..page + pages).map(|page| (page, (permission, number))));
                Ok(())
            }
            Step::Invalidate { page, pages, .. } => {
                space.retain(|other, _| !(page..page + pages).contains(other));
                if self.mappings() > MAPPINGS {
                    *self = before;
                    return Err(VhostError::TooManyMappings);
                }
                Ok(())
            }
            Step::Begin(_) if self.batch.is_some() => Err(VhostError::Invalid),
            Step::Begin(asid) => {
                self.batch = Some((asid, space.clone()));
                Ok(())
            }
            Step::End(_) => self.batch.take().map(|_| ()).ok_or(VhostError::Invalid),
            Step::Refuse(_) => Ok(()),
        }
    }
}

/// The ranges of a space, with their permissions.
fn runs(space: &Space) -> Vec<(IovaRange, Permission)> {
    let mut runs: Vec<(u64, u64, u8, usize)> = Vec::new();
    for (&page, &(permission, update)) in space {
        match runs.last_mut() {
            Some((_, last, _, same)) if *last + 1 == page && *same == update => *last = page,
            _ => runs.push((page, page, permission, update)),
        }
    }
    let range = |first: u64, last: u64| {
        IovaRange::new(FIRST + first * PAGE, (last - first + 1) * PAGE).unwrap()
    };
    runs.into_iter()
        .map(|(first, last, permission, _)| {
            (
                range(first, last),
                Permission::from_bits(permission).unwrap(),
            )
        })
        .collect()
}

fn message(step: &Step, memory: &SharedMemory) -> Option<IotlbMessage> {
    Some(match *step {
        Step::Update {
            asid,
            page,
            pages,
            permission,
        } => IotlbMessage::Update {
            asid,
            iova: FIRST + page * PAGE,
            size: pages * PAGE,
            memory: DeviceMemory::open(memory).unwrap(),
            offset: 0,
            permission: Permission::from_bits_retain(permission),
        },
        Step::Invalidate { asid, page, pages } => IotlbMessage::Invalidate {
            asid,
            iova: FIRST + page * PAGE,
            size: pages * PAGE,
        },
        Step::Begin(asid) => IotlbMessage::BatchBegin { asid },
        Step::End(asid) => IotlbMessage::BatchEnd { asid },
        Step::Refuse(_) => return None,
    })
}

fn check(translation: Translation, steps: &[Step]) {
    let world = World::with(translating(translation));
    let handle = world.owner_with(OpenOptions {
        quota: QUOTA * PAGE,
        mappings: MAPPINGS,
        ..OpenOptions::default()
    });
    let memory = world.memory(4 * 4096);
    let mut model = Model::default();
    for (number, step) in steps.iter().enumerate() {
        let Some(message) = message(step, &memory) else {
            if let Step::Refuse(skip) = step {
                world.parent.fail_after(*skip, OpError::OutOfResources);
            }
            continue;
        };
        let mut after = model.clone();
        let expected = after.apply(step, number);
        let answer = handle.message(message);
        if answer == Err(VhostError::OutOfResources) && expected.is_ok() {
            // The device has refused: nothing has changed, or, at the end of a batch, nothing of
            // all of it.
            if let Step::End(asid) = step
                && let Some((_, before)) = model.batch.take()
            {
                model.spaces[usize::from(*asid)] = before;
            }
        } else {
            assert_eq!(answer, expected, "{step:?}");
            if answer.is_ok() {
                model = after;
            }
        }
        for (asid, space) in (0..).zip(&model.spaces) {
            let withheld = translation == Translation::Whole
                && model.batch.as_ref().is_some_and(|batch| batch.0 == asid);
            if !withheld {
                assert_eq!(world.parent.mapped(asid), runs(space), "after {step:?}");
            }
        }
    }
    world.parent.take_fault();
    world.run(handle.close()).unwrap();
    assert!((0..SPACES).all(|asid| world.parent.mapped(asid).is_empty()));
    drop(memory);
    assert_eq!(world.platform.heap().outstanding(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_device_that_is_told_of_each_change_has_what_the_messages_say(steps in steps()) {
        check(Translation::Incremental, &steps);
    }

    #[test]
    fn a_device_that_is_told_of_the_whole_has_what_the_messages_say(steps in steps()) {
        check(Translation::Whole, &steps);
    }
}
