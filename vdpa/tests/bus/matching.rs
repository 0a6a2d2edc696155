//! Who may claim a device, and who is asked first.

use std::sync::Arc;

use vdpa::bus::{AddError, Bound, Driver, NAME_MAX};

use crate::toy::{Toy, any, row, run, world};

#[test]
fn device_and_driver_meet_in_either_order() {
    run(async {
        let w = world();
        let first = w.add("a").await;
        w.drive(w.table("d", vec![any(0)])).await;
        let second = w.add("b").await;
        assert_eq!(w.journal.take(), ["d probe a with 0", "d probe b with 0"]);
        assert_eq!(w.bus.driver_of(&first).as_deref(), Some("d"));
        assert_eq!(w.bus.driver_of(&second).as_deref(), Some("d"));
    });
}

#[test]
fn a_driver_with_a_table_is_not_matched_by_its_name() {
    run(async {
        let w = world();
        let device = w.add("toy").await;
        w.drive(w.table("toy", vec![row("other", 0)])).await;
        assert_eq!(w.bus.driver_of(&device), None);
        w.drive(w.table("by-table", vec![row("toy", 0)])).await;
        assert_eq!(w.bus.driver_of(&device).as_deref(), Some("by-table"));
    });
}

#[test]
fn a_driver_without_a_table_is_matched_by_its_name() {
    run(async {
        let w = world();
        let device = w.add("toy").await;
        w.drive(w.driver("other")).await;
        assert_eq!(w.bus.driver_of(&device), None);
        w.drive(w.driver("toy")).await;
        assert_eq!(w.bus.driver_of(&device).as_deref(), Some("toy"));
        assert_eq!(w.journal.take(), ["toy probe toy"]);
    });
}

#[test]
fn the_matched_row_reaches_the_probe() {
    run(async {
        let w = world();
        w.drive(w.table("d", vec![any(3), row("b", 1), row("a", 2)]))
            .await;
        w.add("a").await;
        w.add("c").await;
        assert_eq!(w.journal.take(), ["d probe a with 2", "d probe c with 3"]);
    });
}

#[test]
fn a_failed_match_or_probe_leaves_no_trace() {
    run(async {
        let w = world();
        let device = w.add("a").await;
        w.drive(w.table("stranger", vec![row("b", 0)])).await;
        w.drive(w.table("failing", vec![row("a", 7)]).failing(1))
            .await;
        assert_eq!(w.bus.driver_of(&device), None);
        assert_eq!(w.bus.unmatched(), ["a toy:a"]);
        assert_eq!(w.journal.take(), ["failing probe a with 7", "quiesce a"]);
    });
}

#[test]
fn devices_of_one_kind_have_names_of_their_own_and_one_driver() {
    run(async {
        let w = world();
        w.drive(w.driver("lan")).await;
        let ports: Vec<_> = (0..3)
            .map(|_| Toy::numbered(&w.bus, &w.root, "lan", &w.journal))
            .collect();
        for port in &ports {
            w.bus.add_device(Arc::clone(port)).await.unwrap();
        }
        assert_eq!(
            w.journal.take(),
            ["lan probe lan.0", "lan probe lan.1", "lan probe lan.2"]
        );
    });
}

#[test]
fn callbacks_that_a_driver_does_not_have_do_nothing() {
    struct Bare;
    impl Driver<Toy> for Bare {
        fn name(&self) -> &'static str {
            "a"
        }
    }
    run(async {
        let w = world();
        let device = w.add("a").await;
        w.bus.add_driver(Arc::new(Bare)).await.unwrap();
        assert_eq!(w.bus.driver_of(&device).as_deref(), Some("a"));
        vdpa::power::suspend(&w.root).await.unwrap();
        vdpa::power::resume(&w.root).await.unwrap();
        vdpa::power::shutdown(&w.root).await;
        let nothing: Box<dyn Bound> = Box::new(());
        nothing.remove().await;
        w.bus.remove_driver("a").await;
        assert_eq!(w.bus.driver_of(&device), None);
    });
}

#[test]
fn a_failed_probe_can_be_repeated_by_a_scan() {
    run(async {
        let w = world();
        w.drive(w.table("d", vec![any(0)]).failing(1)).await;
        let device = w.add("a").await;
        assert_eq!(w.bus.driver_of(&device), None);
        w.bus.rescan().await;
        assert_eq!(w.bus.driver_of(&device).as_deref(), Some("d"));
        w.bus.rescan().await;
        assert_eq!(
            w.journal.take(),
            ["d probe a with 0", "quiesce a", "d probe a with 0"]
        );
    });
}

#[test]
fn the_best_match_goes_first_and_the_next_one_inherits() {
    run(async {
        let w = world();
        w.drive(w.driver("a")).await;
        w.drive(w.table("wild", vec![any(0)])).await;
        w.drive(w.table("late", vec![row("b", 1), row("a", 0)]).failing(1))
            .await;
        w.drive(w.table("later", vec![row("a", 0)]).failing(1))
            .await;
        let device = w.add("a").await;
        assert_eq!(
            w.journal.take(),
            [
                "late probe a with 0",
                "quiesce a",
                "later probe a with 0",
                "quiesce a",
                "wild probe a with 0"
            ]
        );
        w.bus.set_override(&device, Some("a")).await;
        assert_eq!(
            w.journal.take(),
            ["wild remove a", "quiesce a", "a probe a"]
        );
    });
}

#[test]
fn an_override_decides_even_against_the_tables() {
    run(async {
        let w = world();
        w.drive(w.table("exact", vec![row("a", 0)])).await;
        w.drive(w.table("other", vec![row("b", 0)])).await;
        let device = w.add("a").await;
        w.journal.take();
        w.bus.set_override(&device, Some("other")).await;
        assert_eq!(
            w.journal.take(),
            ["exact remove a", "quiesce a", "other probe a"]
        );
        w.bus.set_override(&device, Some("absent")).await;
        assert_eq!(w.bus.driver_of(&device), None);
        w.bus.rescan().await;
        assert_eq!(w.bus.driver_of(&device), None);
        w.bus.set_override(&device, None).await;
        assert_eq!(w.bus.driver_of(&device).as_deref(), Some("exact"));
    });
}

#[test]
fn names_that_are_empty_or_too_long_are_refused() {
    run(async {
        let w = world();
        let longest = "x".repeat(NAME_MAX);
        let too_long = "x".repeat(NAME_MAX + 1);
        for bad in ["", too_long.as_str()] {
            let device = Toy::named(&w.root, bad, &w.journal);
            assert_eq!(w.bus.add_device(device).await, Err(AddError::BadName));
            assert_eq!(
                w.bus.add_driver(Arc::new(w.driver(bad))).await,
                Err(AddError::BadName)
            );
        }
        let device = w.add(&longest).await;
        w.drive(w.driver(&longest)).await;
        assert_eq!(w.bus.driver_of(&device), Some(longest));
    });
}

#[test]
fn names_on_a_bus_are_unique() {
    run(async {
        let w = world();
        w.add("a").await;
        w.drive(w.driver("d")).await;
        let twin = Toy::named(&w.root, "a", &w.journal);
        assert_eq!(w.bus.add_device(twin).await, Err(AddError::NameTaken));
        assert_eq!(
            w.bus.add_driver(Arc::new(w.driver("d"))).await,
            Err(AddError::NameTaken)
        );
        assert_eq!(w.bus.devices().len(), 1);
    });
}
