//! Cards that are pulled out: at any moment everything reads as ones.

use std::sync::Arc;
use std::time::Duration;

use ifcvf_card::{Plan, Product};
use vdpa::Platform;
use vdpa::bus::BusDevice;
use vdpa::device::VdpaClaim;
use vdpa::ops::OpError;
use vdpa::testing::FakePlatform;

use crate::bench::Bench;
use crate::rig::{Rig, must};

/// No card is asked so often by anything that is done here.
const ACCESSES_MAX: u64 = 5000;

/// How often the card is asked from now on, and how often it is if it goes at the latest moment.
fn accesses(bench: &Bench) -> u64 {
    bench.card().counters().accesses
}

/// The driver goes from a card that is not there any more, and leaves nothing behind.
#[track_caller]
fn assert_gone_cleanly(bench: &Bench, when: u64) {
    let function = bench.function(0);
    bench.run(bench.machine.pci.remove_device(&function));
    assert!(bench.vdpa.devices().is_empty(), "{when}");
    assert_eq!(bench.platform().vectors_in_use(), 0, "{when}");
    // The card is looked at every millisecond.
    bench.run(bench.platform().sleep(Duration::from_millis(2)));
    let tasks = bench.platform().tasks();
    assert_eq!(tasks, ["card"], "{when}");
}

/// Does `work` on cards that go after 0, 1, 2.. accesses, until one lasts.
fn at_each_access(plan: &Plan, work: impl Fn(&Bench, u64) -> bool) {
    for accesses in 0..ACCESSES_MAX {
        let bench = Bench::new([plan.clone()]);
        if work(&bench, accesses) {
            return;
        }
        assert!(bench.platform().now().as_secs() < 5, "{accesses}");
    }
    panic!("it never comes to an end");
}

fn pull_after(bench: &Bench, accesses: u64) {
    bench
        .card()
        .set_faults(|faults| faults.gone_after = Some(accesses));
}

/// Whether the card is there still.
fn lasts(bench: &Bench) -> bool {
    let mut bytes = [0; 2];
    bench.card().set_faults(|faults| {
        let left = faults.gone_after.take();
        faults.gone_after = left.map(|left| left.saturating_add(1));
    });
    bench.card().read_config(0, &mut bytes);
    bytes != [0xff; 2]
}

#[test]
fn a_card_may_go_at_any_step_of_the_probe() {
    for product in [Product::N3000Net, Product::C5000xBlk] {
        at_each_access(&Plan::new(product), |bench, accesses| {
            pull_after(bench, accesses);
            bench.probe();
            let driven = !bench.vdpa.devices().is_empty();
            let lasts = lasts(bench);
            assert!(driven || !lasts, "{accesses}: refused without a reason");
            assert_gone_cleanly(bench, accesses);
            lasts
        });
    }
}

/// A device on a card that goes after so many accesses.
fn device(bench: &Bench, accesses: u64) -> Arc<VdpaClaim> {
    bench.probe();
    let mut devices = bench.held();
    pull_after(bench, accesses);
    devices.remove(0)
}

/// What a device that is gone may answer. One that goes in the middle of something may also be
/// caught at nonsense; what it did before it went may have gone well.
#[track_caller]
fn assert_tells(result: Result<(), OpError>, lasts: bool, accesses: u64) {
    match result {
        Ok(()) => {}
        Err(error) => {
            assert!(!lasts, "{accesses}: {error} without a reason");
            let expected = matches!(error, OpError::Gone | OpError::Broken);
            assert!(expected, "{accesses}: {error}");
        }
    }
}

/// Everything that is done to a device: set up, traffic, suspend, resume, states, move, reset.
async fn whole_life(rig: &mut Rig) -> Result<(), OpError> {
    let states = vec![None; rig.lines.len()];
    rig.run(&states).await?;
    let device = Arc::clone(&rig.device);
    device.read_config(0, &mut [0; 8])?;
    device.suspend().await?;
    rig.states().await?;
    device.resume().await?;
    device.stop_queue(0).await?;
    device.start_queue(0).await?;
    device.reset().await
}

#[test]
fn a_card_may_go_at_any_step_of_its_life() {
    for product in [Product::N3000Net, Product::C5000xNet, Product::ModernBlk] {
        let plan = Plan {
            queues: 1,
            ..Plan::new(product)
        };
        at_each_access(&plan, |bench, accesses| {
            let device = device(bench, accesses);
            let platform: &Arc<FakePlatform> = bench.platform();
            let mut rig = Rig::new(platform, &device, must());
            let result = platform.block_on(whole_life(&mut rig));
            let lasts = lasts(bench);
            assert_tells(result, lasts, accesses);
            drop((rig, device));
            assert_gone_cleanly(bench, accesses);
            lasts
        });
    }
}

#[test]
fn a_card_that_goes_while_it_works_is_removed_without_waiting() {
    for product in Product::ALL {
        let (bench, device) = Bench::one(Plan::new(product));
        let rig = Rig::start(bench.platform(), &device, must());
        bench.card().remove();
        let before = accesses(&bench);
        assert_eq!(device.status(), Err(OpError::Gone));
        assert_eq!(bench.run(device.suspend()), Err(OpError::Gone));
        assert_eq!(bench.run(device.resume()), Err(OpError::Gone));
        assert_eq!(bench.run(device.stop_queue(0)), Err(OpError::Gone));
        assert_eq!(device.read_config(0, &mut [0; 4]), Err(OpError::Gone));
        assert_eq!(bench.run(device.reset()), Err(OpError::Gone));
        assert!(accesses(&bench) - before < 200, "nobody asks on and on");
        drop((rig, device));
        assert_eq!(bench.platform().now(), Duration::ZERO);
        assert_gone_cleanly(&bench, 0);
    }
}

#[test]
fn a_driver_that_goes_leaves_the_card_as_it_was() {
    for product in Product::ALL {
        let (bench, device) = Bench::one(Plan::new(product));
        let rig = Rig::start(bench.platform(), &device, must());
        rig.stop();
        drop(device);
        bench.run(bench.machine.pci.remove_driver("ifcvf"));
        bench.assert_untouched();
        bench.assert_lawful();
        bench.probe();
        assert_eq!(bench.vdpa.devices().len(), 1);
        let function = bench.function(0);
        assert_eq!(function.node().driver().as_deref(), Some("ifcvf"));
    }
}
