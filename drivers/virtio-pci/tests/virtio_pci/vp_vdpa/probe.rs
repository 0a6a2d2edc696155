//! Which functions become devices, and that a failed probe leaves no trace.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use vdpa::Platform;
use vdpa::bus::BusDevice;
use virtio_pci::{Defect, LayoutError, OpenError, Structure, Unsuitable, vp_vdpa};

use crate::fakes::function::BarType;
use crate::fakes::registers::Resetting;
use crate::fakes::virtio::{Plan, VirtioCap};

use super::{Bench, NAME};

#[test]
fn transitional_and_modern_ids_become_devices_of_the_right_type() {
    for (device, subdevice, device_type) in [
        (0x1000, 1, 1),
        (0x1001, 2, 2),
        (0x1041, 0x1100, 1),
        (0x1042, 0x1100, 2),
        (0x107f, 0, 63),
    ] {
        let (bench, vdpa) = Bench::probed(Plan {
            device,
            subdevice,
            ..Plan::default()
        });
        assert_eq!(vdpa.device_type(), device_type);
        assert_eq!(vdpa.vendor_id(), 0x1af4);
        assert_eq!(vdpa.node().path(), format!("{NAME} -> vdpa0"));
        assert_eq!(vdpa.dma_device().name(), NAME);
        assert_eq!(
            bench.machine.device(NAME).node().driver().as_deref(),
            Some("vp_vdpa")
        );
    }
}

#[test]
fn other_ids_are_left_alone() {
    for (device, subdevice) in [(0x0fff, 1), (0x1080, 1), (0x1110, 1)] {
        let bench = Bench::new(Plan {
            device,
            subdevice,
            ..Plan::default()
        });
        bench.assert_refused();
        assert!(
            bench
                .function
                .writes()
                .iter()
                .all(|write| write.offset != 0x40)
        );
    }
}

#[test]
fn a_function_without_a_device_type_is_refused() {
    Bench::new(Plan {
        device: 0x1000,
        subdevice: 0,
        ..Plan::default()
    })
    .assert_refused();
    Bench::new(Plan {
        device: 0x1040,
        ..Plan::default()
    })
    .assert_refused();
}

#[test]
fn a_legacy_function_is_refused() {
    Bench::new(Plan {
        capabilities: vec![],
        ..Plan::default()
    })
    .assert_refused();
    Bench::new(Plan {
        features: 0,
        ..Plan::default()
    })
    .assert_refused();
}

#[test]
fn every_step_of_a_failed_probe_is_undone() {
    let cut = |kind: u8| {
        let usual = VirtioCap::usual().into_iter();
        usual
            .filter(|capability| capability.kind != kind)
            .collect::<Vec<_>>()
    };
    // Layout, mapping, queues, and the driver's last step.
    Bench::new(Plan {
        capabilities: cut(3),
        ..Plan::default()
    })
    .assert_refused();
    Bench::new(Plan {
        bar4: BarType::Io,
        ..Plan::default()
    })
    .assert_refused();
    Bench::new(Plan {
        queues: vec![],
        ..Plan::default()
    })
    .assert_refused();
    Bench::new(Plan {
        queues: vec![0, 64],
        ..Plan::default()
    })
    .assert_refused();
    // The MSI-X table: more entries than its BAR holds.
    Bench::new(Plan {
        vectors: 300,
        ..Plan::default()
    })
    .assert_refused();
}

/// The driver's own cause of a refusal, and what the console says of it.
#[track_caller]
fn cause(plan: Plan) -> (Unsuitable, String) {
    let bench = Bench::new(plan);
    let platform = Arc::clone(&bench.machine.platform) as Arc<dyn Platform>;
    let function = bench.machine.device(NAME);
    let error = bench.run(vp_vdpa::probe(&function, &platform, 1));
    let error = error.unwrap_err();
    let cause = error.source().unwrap().downcast_ref();
    (*cause.unwrap(), error.to_string())
}

#[test]
fn who_is_refused_a_function_is_told_the_cause() {
    let capabilities = vec![];
    let layout = LayoutError::Missing(Structure::Common);
    assert_eq!(
        cause(Plan { capabilities, ..Plan::default() }),
        (
            Unsuitable::Open(OpenError::Layout(layout)),
            "unsuitable device: no modern virtio capabilities; a legacy-only function is not supported".into(),
        )
    );
    let bar4 = BarType::Io;
    let layout = LayoutError::Unusable(Structure::Device, Defect::IoBar);
    assert_eq!(
        cause(Plan {
            bar4,
            ..Plan::default()
        }),
        (
            Unsuitable::Open(OpenError::Layout(layout)),
            "unsuitable device: a virtio structure is in a BAR of I/O ports".into(),
        )
    );
    let features = 0;
    assert_eq!(
        cause(Plan {
            features,
            ..Plan::default()
        }),
        (
            Unsuitable::NoVersion1,
            "unsuitable device: the function does not offer VERSION_1".into(),
        )
    );
    let vectors = 300;
    assert_eq!(
        cause(Plan { vectors, ..Plan::default() }),
        (
            Unsuitable::Msix(pci::MsixError::Outside),
            "unsuitable device: the function's MSI-X table cannot be used: the MSI-X table does not fit its BAR".into(),
        )
    );
}

#[test]
fn a_failed_registration_is_undone() {
    let bench = Bench::new(Plan::default());
    bench.vdpa_bus.close().unwrap();
    bench.assert_refused();
}

#[test]
fn a_claimed_function_is_refused() {
    let bench = Bench::new(Plan::default());
    let claim = bench.machine.device(NAME).claim().unwrap();
    bench.probe();
    assert!(bench.vdpa_bus.devices().is_empty());
    drop(claim);
    bench.run(bench.machine.pci.rescan());
    assert_eq!(bench.vdpa_bus.devices().len(), 1);
}

#[test]
fn a_device_that_never_leaves_reset_is_given_up_after_a_deadline() {
    let bench = Bench::new(Plan::default());
    bench.device.state.lock().resetting = Resetting::Never;
    bench.assert_refused();
    let waited = bench.machine.platform.now();
    assert!(
        waited >= Duration::from_millis(500) && waited < Duration::from_secs(3),
        "{waited:?}"
    );
}

#[test]
fn a_slow_reset_is_waited_for() {
    let bench = Bench::new(Plan::default());
    bench.device.state.lock().resetting = Resetting::After(20);
    bench.probe();
    assert_eq!(bench.vdpa_bus.devices().len(), 1);
}

#[test]
fn a_prompt_reset_costs_no_time() {
    let (bench, _vdpa) = Bench::probed(Plan::default());
    assert_eq!(bench.machine.platform.now(), Duration::ZERO);
    // Once before it is looked at, and once afterwards.
    assert_eq!(bench.device.state.lock().resets, 2);
}

#[test]
fn firmware_dma_stops_before_the_function_may_master_the_bus() {
    let bench = Bench::new(Plan::default());
    bench.device.state.lock().status = 0x0f;
    bench.probe();
    let states = bench.function.writes();
    let on = states
        .iter()
        .position(|write| write.offset == 4 && write.value & 4 != 0)
        .unwrap();
    // The function was reset when bus mastering came on, which the last write to command did.
    assert!(
        states[on..]
            .iter()
            .all(|write| write.offset != 4 || write.value & 4 != 0)
    );
    assert_eq!(bench.device.state.lock().resets, 2);
}

#[test]
fn a_function_with_more_queues_than_anybody_uses_is_driven() {
    let (_bench, vdpa) = Bench::probed(Plan {
        queues: vec![8; 2000],
        ..Plan::default()
    });
    assert_eq!(vdpa.queue_count(), 1024);
    assert_eq!(vdpa.doorbell(1023).err(), None);
}
