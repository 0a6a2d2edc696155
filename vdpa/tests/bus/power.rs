//! The order in which devices go down and come back.

use std::sync::Arc;

use vdpa::Node;
use vdpa::bus::{Bus, BusDevice};
use vdpa::power::{PowerError, resume, shutdown, suspend};

use crate::toy::{Journal, Toy, ToyBus, ToyDriver, any, row, run};

/// Two ports on a card, one with a function below it, over two buses.
struct System {
    root: Arc<Node>,
    _buses: [Arc<ToyBus>; 2],
}

async fn three_levels(journal: &Journal, stubborn: &'static str) -> System {
    let root = Node::root("root");
    let buses: [Arc<ToyBus>; 2] = [Bus::new("lower"), Bus::new("upper")];
    for bus in &buses {
        let stubborn = ToyDriver::new("d", vec![row(stubborn, 0)], journal).refusing_suspend();
        bus.add_driver(Arc::new(stubborn))
            .await
            .expect("a good name");
        let willing = ToyDriver::new("w", vec![any(0)], journal);
        bus.add_driver(Arc::new(willing))
            .await
            .expect("a good name");
    }
    let [lower, upper] = &buses;
    let card = Toy::named(&root, "card", journal);
    let left = Toy::named(card.node(), "left", journal);
    let right = Toy::named(card.node(), "right", journal);
    let function = Toy::named(left.node(), "function", journal);
    for (bus, device) in [
        (lower, card),
        (upper, left),
        (upper, right),
        (upper, function),
    ] {
        bus.add_device(device).await.expect("a good name");
    }
    journal.take();
    System {
        root,
        _buses: buses,
    }
}

#[test]
fn children_go_down_before_their_parents_and_the_youngest_first() {
    run(async {
        let journal = Journal::default();
        let system = three_levels(&journal, "").await;
        shutdown(&system.root).await;
        let expected = [
            "w shutdown right",
            "w shutdown function",
            "w shutdown left",
            "w shutdown card",
        ];
        assert_eq!(journal.take(), expected);
    });
}

#[test]
fn resume_is_the_reverse_of_suspend() {
    run(async {
        let journal = Journal::default();
        let system = three_levels(&journal, "").await;
        resume(&system.root).await.unwrap();
        assert_eq!(journal.take(), [""; 0], "nothing was suspended");
        suspend(&system.root).await.unwrap();
        resume(&system.root).await.unwrap();
        let expected = [
            "w suspend right",
            "w suspend function",
            "w suspend left",
            "w suspend card",
            "w resume card",
            "w resume left",
            "w resume function",
            "w resume right",
        ];
        assert_eq!(journal.take(), expected);
    });
}

#[test]
fn a_device_that_refuses_to_suspend_rolls_the_others_back() {
    run(async {
        let journal = Journal::default();
        let system = three_levels(&journal, "left").await;
        assert_eq!(suspend(&system.root).await, Err(PowerError::Busy));
        let expected = [
            "w suspend right",
            "w suspend function",
            "d suspend left",
            "w resume function",
            "w resume right",
        ];
        assert_eq!(journal.take(), expected);
    });
}
