//! Any sequence of changes, against the model.

use proptest::prelude::*;

use vdpa::iotlb::{Capacity, Fault, Full, Iotlb, IovaRange, MapError, Permission};

use crate::Place;
use crate::model::{MIDDLE, Model, WINDOW};

/// How long a sequence is; Miri takes its time.
const STEPS_MAX: usize = if cfg!(miri) { 8 } else { 60 };

#[derive(Clone, Copy, Debug)]
enum Step {
    Map(IovaRange, Permission, u64),
    Unmap(IovaRange),
    Clear,
}

/// An address near one of the ends, and with it the part of the middle that a range then holds is
/// all or nothing.
fn bound() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..WINDOW,
        4 => (u64::MAX - WINDOW + 1)..=u64::MAX,
        1 => Just(0),
        1 => Just(u64::MAX),
    ]
}

fn any_range() -> impl Strategy<Value = IovaRange> {
    let short = (bound(), 1u64..12).prop_map(|(first, len)| {
        let last = first.saturating_add(len - 1);
        // A range that starts below the middle ends there.
        let last = if first < WINDOW {
            last.min(WINDOW - 1)
        } else {
            last
        };
        IovaRange::from_bounds(first, last).unwrap()
    });
    let long =
        (bound(), bound()).prop_map(|(a, b)| IovaRange::from_bounds(a.min(b), a.max(b)).unwrap());
    prop_oneof![4 => short, 1 => long]
}

fn permission() -> impl Strategy<Value = Permission> {
    prop_oneof![
        Just(Permission::READ),
        Just(Permission::WRITE),
        Just(Permission::all())
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any_range(), permission(), any::<u64>())
            .prop_map(|(range, permission, place)| Step::Map(range, permission, place)),
        6 => any_range().prop_map(Step::Unmap),
        1 => Just(Step::Clear),
    ]
}

/// Whether unmapping leaves both ends of one mapping, by the model: one mapping more than before.
fn splits(model: &Model, range: IovaRange) -> bool {
    let mut after = model.clone();
    after.unmap(range);
    after.mappings() > model.mappings()
}

fn check(table: &Iotlb<Place>, model: &Model, range: IovaRange, wanted: Permission) {
    // Address by address.
    for (addr, expected) in model.walk(IovaRange::ALL, wanted) {
        let found = table.translate(addr, wanted).map(|mapping| {
            assert!(mapping.range.first() <= addr && addr <= mapping.range.last());
            mapping.target.0.wrapping_add(addr - mapping.range.first())
        });
        assert_eq!(found, expected, "at {addr:#x}");
    }
    // The walk over a range: what it covers is what the model says, up to the first fault.
    let mut expected = model.walk(range, wanted).peekable();
    let mut next = range.first();
    for piece in table.pieces(range, wanted) {
        match piece {
            Ok(piece) => {
                assert_eq!(piece.range.first(), next, "no hole between pieces");
                while let Some((addr, place)) =
                    expected.next_if(|(addr, _)| *addr <= piece.range.last())
                {
                    let found = piece.target.0.wrapping_add(addr - piece.range.first());
                    assert_eq!(place, Ok(found), "at {addr:#x}");
                }
                next = piece.range.last().wrapping_add(1);
            }
            Err(fault) => {
                let (addr, expected) = expected.next().unwrap();
                // All of the middle is one cell, which starts after the low window.
                let place = if addr == MIDDLE { WINDOW } else { addr };
                let expected = match expected {
                    Err(Fault::NoMapping(_)) => Fault::NoMapping(place),
                    Err(Fault::Permission(_)) => Fault::Permission(place),
                    Ok(_) => panic!("a fault where the model has none"),
                };
                assert_eq!(fault, expected);
                return;
            }
        }
    }
    assert_eq!(expected.next(), None, "the walk ends where the range does");
    assert_eq!(next, range.last().wrapping_add(1));
}

fn run(capacity: Capacity, steps: &[Step], probe: IovaRange, wanted: Permission) {
    let mut table = Iotlb::new(capacity);
    let mut model = Model::new();
    let full = |model: &Model| capacity == Capacity::Refuse(model.mappings());
    for step in steps {
        let before = (table.generation(), table.len());
        let mut changed = true;
        match *step {
            Step::Map(range, permission, place) => {
                let result = table.map(range, permission, Place(place));
                if model.overlaps(range) {
                    assert_eq!(result, Err(MapError::Overlap));
                    changed = false;
                } else if full(&model) {
                    assert_eq!(result, Err(MapError::Full(Full)));
                    changed = false;
                } else {
                    assert_eq!(result, Ok(()));
                    model.map(range, permission, place);
                }
            }
            Step::Unmap(range) => {
                let result = table.unmap(range);
                if splits(&model, range) && full(&model) {
                    assert_eq!(result, Err(Full));
                    changed = false;
                } else {
                    let bytes = model.unmap(range);
                    assert_eq!(result, Ok(bytes));
                    changed = bytes > 0;
                }
            }
            Step::Clear => {
                changed = !table.is_empty();
                table.clear();
                model.unmap(IovaRange::ALL);
            }
        }
        assert_eq!(table.generation() > before.0, changed);
        assert_eq!(table.len(), model.mappings());
        check(&table, &model, probe, wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 2 * ProptestConfig::default().cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_table_does_what_the_model_does(
        steps in proptest::collection::vec(step(), 1..STEPS_MAX),
        probe in any_range(),
        wanted in permission(),
    ) {
        run(Capacity::Unlimited, &steps, probe, wanted);
    }

    #[test]
    fn a_table_with_a_limit_does_what_the_model_does(
        limit in 0usize..6,
        steps in proptest::collection::vec(step(), 1..STEPS_MAX),
        probe in any_range(),
        wanted in permission(),
    ) {
        run(Capacity::Refuse(limit), &steps, probe, wanted);
    }
}
