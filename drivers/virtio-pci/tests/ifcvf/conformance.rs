//! The conformance suite over the driver: every card, with every number of vectors.

use std::collections::BTreeSet;
use std::sync::Arc;

use ifcvf_card::{Delay, Doorbells, Kind, Plan, Product};
use vdpa::conformance::{Outcome, Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::{Platform, VdpaOps};

use crate::bench::Bench;

/// A card whose driver is made anew for each check.
struct Slot {
    bench: Bench,
    product: Product,
}

impl Slot {
    fn new(plan: Plan) -> Self {
        let product = plan.product;
        let bench = Bench::new([plan]);
        Self { bench, product }
    }

    /// Runs the suite, which skips what it must and nothing else.
    #[track_caller]
    fn assert_passes(&self) {
        let platform = self.bench.platform();
        let report = platform.block_on(run(self));
        assert!(report.is_passed(), "{report}");
        let checks = report.checks().iter();
        let skips = checks.filter(|check| matches!(check.outcome, Outcome::Skipped(_)));
        let skips: BTreeSet<_> = skips.map(|check| check.name).collect();
        let right = BTreeSet::from_iter(skipped(self.product.kind()));
        assert_eq!(skips, right, "{report}");
        // The suite itself notifies in every state, as a client can.
        let violations = self.bench.card().violations();
        let mut others = violations.iter();
        let other = others.find(|violation| !violation.ends_with("notified before DRIVER_OK"));
        assert_eq!(other, None);
        self.bench.assert_untouched();
    }
}

impl Subject for Slot {
    fn name(&self) -> &str {
        self.product.name()
    }

    fn device_type(&self) -> u32 {
        self.product.kind().device_type()
    }

    fn abilities(&self) -> Abilities {
        Abilities::SUSPEND | Abilities::RESUME | Abilities::QUEUE_STATE | Abilities::DIRTY_LOG
    }

    fn platform(&self) -> Arc<dyn Platform> {
        self.bench.machine.platform()
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        Box::pin(async {
            let parent = self.bench.parent(0).await;
            Ok(Box::new(parent.unwrap()) as _)
        })
    }

    fn service(&self) -> Service {
        match self.product.kind() {
            Kind::Net => Service::NetLoopback,
            Kind::Blk => Service::Blk,
        }
    }

    fn change_config(&self) -> bool {
        // The link goes down or comes up; a block card's topology is not negotiated, so that nobody
        // looks.
        let at = match self.product.kind() {
            Kind::Net => 6,
            Kind::Blk => 24,
        };
        self.bench.card().change_config(|config| config[at] ^= 1);
        true
    }
}

/// What concerns packed rings, of which the block tells no state, and devices that translate
/// addresses.
const NOT_OURS: [&str; 7] = [
    "packed: a queue starts where it is told to, or at the start alone",
    "memory can be mapped and taken away, whole and in parts, in every address space",
    "what overlaps, and what lies outside its addresses, is refused",
    "memory that was mapped stays mapped over a reset, if it says so, until it is reset",
    "the platform's addresses mean nothing to a device that translates",
    "memory that was taken away is not touched any more",
    "a queue reaches what is mapped in the address space of its group, and nothing else",
];

/// What is not checked of a card of this kind besides.
fn skipped(kind: Kind) -> Vec<&'static str> {
    let other_kind: &[_] = match kind {
        Kind::Net => &[
            "packed: frames of every length come back",
            "split: what is written is read back, and is put back",
            "packed: what is written is read back, and is put back",
            "it can be flushed, and has a name",
            "what lies beyond its end is refused, and nothing is written there",
            "a request that does not exist is refused",
            "many requests are answered, past the end of the ring",
        ],
        Kind::Blk => &[
            "split: frames of every length come back",
            "packed: frames of every length come back",
            "many frames come back, in order, past the end of the ring",
            "packed: what is written is read back, and is put back",
        ],
    };
    [&NOT_OURS, other_kind].concat()
}

#[track_caller]
fn assert_passes(plan: Plan) {
    Slot::new(plan).assert_passes();
}

/// With a vector for each queue and the configuration; one for the queues and one for the
/// configuration; one for everything; none.
#[track_caller]
fn assert_passes_with_any_vectors(product: Product) {
    let plan = Plan::new(product);
    for vectors in [plan.queue_count() + 1, 2, 1, 0] {
        assert_passes(Plan {
            vectors,
            ..plan.clone()
        });
    }
}

#[test]
fn n3000_net_conforms_with_any_number_of_vectors() {
    assert_passes_with_any_vectors(Product::N3000Net);
}

#[test]
fn c5000x_net_conforms_with_any_number_of_vectors() {
    assert_passes_with_any_vectors(Product::C5000xNet);
}

#[test]
fn c5000x_blk_conforms_with_any_number_of_vectors() {
    assert_passes_with_any_vectors(Product::C5000xBlk);
}

#[test]
fn modern_blk_conforms_with_any_number_of_vectors() {
    assert_passes_with_any_vectors(Product::ModernBlk);
}

#[test]
fn modern_blk_with_the_default_subsystem_conforms_with_any_number_of_vectors() {
    assert_passes_with_any_vectors(Product::ModernBlkDefault);
}

#[test]
fn cards_with_a_page_for_each_doorbell_conform() {
    for product in [Product::N3000Net, Product::C5000xBlk] {
        assert_passes(Plan {
            doorbells: Doorbells::PagePerQueue,
            ..Plan::new(product)
        });
    }
}

#[test]
fn slow_cards_conform() {
    for product in Product::ALL {
        let slot = Slot::new(Plan::new(product));
        slot.bench.card().set_faults(|faults| {
            faults.reset = Delay::After(5);
            faults.stop = Delay::After(9);
        });
        slot.assert_passes();
    }
}
