//! Rows of id tables, and what they match.

use std::sync::Arc;

use pci::{Identity, PciDevice, PciId};
use spin::Mutex;
use vdpa::bus::{Bound, BusDevice, Claim, Driver, ProbeError};
use vdpa::platform::BoxFuture;

use crate::fakes::function::Builder;
use crate::fakes::machine::Machine;

const CARD: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1041,
    subvendor: 0x8086,
    subdevice: 0x001a,
    class: 0x02_0000,
    revision: 1,
};

#[test]
fn every_field_counts_unless_it_is_a_wildcard() {
    const ROW: PciId = PciId {
        vendor: Some(0x1af4),
        devices: 0x1041..=0x1041,
        subvendor: Some(0x8086),
        subdevice: Some(0x001a),
        class: 0x02_0000,
        class_mask: 0xff_0000,
        driver_data: 7,
    };
    assert!(PciId::ANY.matches(&CARD));
    assert!(ROW.matches(&CARD));
    assert!(ROW.matches(&Identity {
        class: 0x02_8001,
        revision: 9,
        ..CARD
    }));
    for other in [
        Identity {
            vendor: 0x8086,
            ..CARD
        },
        Identity {
            device: 0x1042,
            ..CARD
        },
        Identity {
            subvendor: 0x1af4,
            ..CARD
        },
        Identity {
            subdevice: 0x001b,
            ..CARD
        },
        Identity {
            class: 0x01_0000,
            ..CARD
        },
    ] {
        assert!(!ROW.matches(&other), "{other:x?}");
    }
}

#[test]
fn a_range_of_devices_includes_both_ends() {
    let row = PciId {
        devices: 0x1000..=0x103f,
        ..PciId::ANY
    };
    let matched =
        [0x0fff, 0x1000, 0x103f, 0x1040].map(|device| row.matches(&Identity { device, ..CARD }));
    assert_eq!(matched, [false, true, true, false]);
}

/// Notes which row it was probed with.
struct Recorder {
    name: &'static str,
    rows: Vec<PciId>,
    log: Arc<Mutex<Vec<(&'static str, u64)>>>,
}

impl Driver<PciDevice> for Recorder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn ids(&self) -> &[PciId] {
        &self.rows
    }

    fn probe<'a>(
        &'a self,
        _: Claim<PciDevice>,
        id: Option<&'a PciId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        self.log
            .lock()
            .push((self.name, id.expect("matched by the table").driver_data));
        Box::pin(std::future::ready(Ok(Box::new(()) as Box<dyn Bound>)))
    }
}

#[test]
fn the_exact_row_wins_and_its_data_reaches_the_probe() {
    let log = Arc::default();
    let wild = PciId {
        vendor: Some(0x1af4),
        driver_data: 1,
        ..PciId::ANY
    };
    let exact = PciId {
        devices: 0x1041..=0x1041,
        subvendor: Some(0x8086),
        subdevice: Some(0x001a),
        driver_data: 2,
        ..wild.clone()
    };
    let driver = |name, row| Recorder {
        name,
        rows: vec![row],
        log: Arc::clone(&log),
    };
    let function = Builder::endpoint(0x1af4, 0x1041)
        .subsystem(0x8086, 0x001a)
        .build();
    let other = Builder::endpoint(0x1af4, 0x1042)
        .subsystem(0x8086, 0x001a)
        .build();
    let machine = Machine::with_functions(&[&function, &other]);
    machine.platform.block_on(async {
        machine
            .pci
            .add_driver(Arc::new(driver("wild", wild)))
            .await
            .unwrap();
        machine
            .pci
            .add_driver(Arc::new(driver("exact", exact)))
            .await
            .unwrap();
    });
    machine.enumerate();
    assert_eq!(*log.lock(), [("exact", 2), ("wild", 1)]);
}

#[test]
fn an_unmatched_function_is_listed_with_its_alias() {
    let function = Builder::endpoint(0x8086, 0x2922)
        .class(0x01_0601)
        .subsystem(0x1af4, 0x1100);
    let machine = Machine::with_functions(&[&function.build()]);
    machine.enumerate();
    let alias = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01";
    assert_eq!(machine.device("pci0000:00:01.0").alias(), alias);
    assert_eq!(
        machine.pci.unmatched(),
        [format!("pci0000:00:01.0 {alias}")]
    );
}

#[test]
fn a_function_tells_what_it_is() {
    let function = Builder::endpoint(0x8086, 0x2922)
        .class(0x01_0601)
        .subsystem(0x1af4, 0x1100);
    let function = function
        .capability(0x05, &[0; 10])
        .set(0x100, &[0x10, 0, 1, 0]);
    let machine = Machine::with_functions(&[&function.build()]);
    machine.enumerate();
    let fact = |fact| machine.fact("pci0000:00:01.0", fact).unwrap();
    assert_eq!(fact("id"), "8086:2922");
    assert_eq!(fact("subsystem"), "1af4:1100");
    assert_eq!(fact("class"), "010601");
    assert_eq!(fact("class name"), "SATA controller");
    assert_eq!(fact("capabilities"), "0x05");
    assert_eq!(fact("extended capabilities"), "0x10");
    assert_eq!(fact("MSI-X vectors"), "0");
}
