//! What Linux's `ifcvf` and `vp_vdpa` get wrong, or leave open, and both parents here do not: one
//! test each.

mod interrupts;
mod layout;
mod registers;

use std::sync::Arc;

use vdpa::device::VdpaClaim;

use crate::bench::{Bench, Calls, Driven};
use crate::fakes::virtio::{Plan, version_1};

/// A function of each parent's, running with a callback on every queue and for the configuration.
fn both_running(plan: &Plan) -> impl Iterator<Item = (Bench, Arc<VdpaClaim>, Calls)> {
    Driven::BOTH.into_iter().map(|driven| {
        let (bench, vdpa) = Bench::probed_by(driven, plan.clone());
        let calls = Calls::default();
        bench.start(&vdpa, version_1(), &calls).unwrap();
        (bench, vdpa, calls)
    })
}

/// A function of each parent's, not started.
fn both(plan: &Plan) -> impl Iterator<Item = (Bench, Arc<VdpaClaim>)> {
    Driven::BOTH
        .into_iter()
        .map(|driven| Bench::probed_by(driven, plan.clone()))
}

fn with_vectors(vectors: u16) -> Plan {
    Plan {
        vectors,
        ..Plan::default()
    }
}
