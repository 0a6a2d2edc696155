//! The machines that the guest tests run on.
//!
//! Not the full product: it would repeat what differs in nothing. Interrupts and configuration
//! space depend on the board, ring code on the ring's features, and neither knows of the other. So
//! the rule is
//! - every combination of ring format, event index and indirect descriptors once, because the ring
//!   code takes other ways with each; each value, and each pair of values, on either board;
//! - on either board every number of MSI-X vectors, from one for each queue down to none, because
//!   the parent drivers take other ways: `vp_vdpa` on one, `ifcvf` on the other, and without any on
//!   both;
//! - disks whose queues are far shorter than what the tests have in flight, or as long as QEMU
//!   makes them, or several, in either ring format, and on either board;
//! - either parent driver with a page for each doorbell;
//! - the kernel with debug assertions once on either board, so that each ring format, everything
//!   on, everything off and either parent driver are among them: it takes ten times as long, on the
//!   same ways through the code;
//! - the microvm board once with its devices in memory, and once with PCI.

use std::fmt;

use qemu::build::Profile;
use qemu::device::{Switch, VirtioOptions};
use qemu::machine::Machine;

/// The parent driver that the guest must use for QEMU's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parent {
    /// `vp_vdpa`, which takes every virtio function.
    VpVdpa,
    /// `ifcvf`, which is told to.
    Ifcvf,
}

/// One machine of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// The board.
    pub machine: Machine,
    /// How the kernel is built.
    pub profile: Profile,
    /// Whether the devices offer `VIRTIO_F_RING_PACKED`.
    pub packed: Switch,
    /// Whether the devices offer `VIRTIO_F_EVENT_IDX`.
    pub event_idx: Switch,
    /// Whether the devices offer `VIRTIO_F_INDIRECT_DESC`.
    pub indirect_desc: Switch,
    /// MSI-X vectors of each device; `None` is one for each queue and the configuration.
    pub vectors: Option<u16>,
    /// Descriptors of each disk's queue; `None` is QEMU's default.
    pub disk_queue_size: Option<u16>,
    /// Queues of each disk.
    pub disk_queues: u16,
    /// Who drives the devices.
    pub parent: Parent,
    /// Whether each queue has a page for its doorbell.
    pub page_per_vq: Switch,
}

impl Configuration {
    /// The kernel as it is delivered, with all features.
    pub const fn on(machine: Machine) -> Self {
        Self {
            machine,
            profile: Profile::Compact,
            packed: Switch::Off,
            event_idx: Switch::On,
            indirect_desc: Switch::On,
            vectors: None,
            disk_queue_size: None,
            disk_queues: 1,
            parent: Parent::VpVdpa,
            page_per_vq: Switch::Off,
        }
    }

    /// The virtio properties of its devices.
    pub fn virtio(&self) -> VirtioOptions {
        let wanted = match self.parent {
            Parent::VpVdpa => VirtioOptions::default(),
            Parent::Ifcvf => VirtioOptions::for_ifcvf(),
        };
        VirtioOptions {
            packed: Some(self.packed),
            event_idx: Some(self.event_idx),
            indirect_desc: Some(self.indirect_desc),
            vectors: self.vectors,
            page_per_vq: Some(self.page_per_vq),
            ..wanted
        }
    }

    /// What the guest is told of it on the kernel's command line.
    pub fn append(&self) -> String {
        let vectors = self.vectors.map(|vectors| format!("vectors={vectors}"));
        let no_pci = (!self.has_pci()).then(|| "pci=none".into());
        let parent = (self.parent == Parent::Ifcvf).then(|| "ifcvf=qemu".into());
        let pages = (self.page_per_vq == Switch::On).then(|| "page_per_vq=on".into());
        [vectors, no_pci, parent, pages]
            .into_iter()
            .flatten()
            .collect::<Vec<String>>()
            .join(" ")
    }

    /// Whether its devices are PCI functions.
    fn has_pci(&self) -> bool {
        self.machine != Machine::Microvm
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.machine, self.profile.name())?;
        write!(
            f,
            "/packed={}/event_idx={}/indirect_desc={}",
            self.packed, self.event_idx, self.indirect_desc
        )?;
        if let Some(vectors) = self.vectors {
            write!(f, "/vectors={vectors}")?;
        }
        if let Some(size) = self.disk_queue_size {
            write!(f, "/disk_queue_size={size}")?;
        }
        if self.disk_queues > 1 {
            write!(f, "/disk_queues={}", self.disk_queues)?;
        }
        if self.parent == Parent::Ifcvf {
            f.write_str("/ifcvf")?;
        }
        if self.page_per_vq == Switch::On {
            f.write_str("/page_per_vq=on")?;
        }
        Ok(())
    }
}

/// Every machine of the matrix.
pub fn configurations() -> Vec<Configuration> {
    let q35 = Configuration::on(Machine::Q35);
    let pc = Configuration::on(Machine::Pc);
    let ifcvf = |on| Configuration {
        parent: Parent::Ifcvf,
        ..on
    };
    let vectors = |on, vectors| Configuration {
        vectors: Some(vectors),
        ..on
    };
    let mut all: Vec<Configuration> = rings().chain(disks()).collect();
    all.extend([2, 1, 0].map(|count| vectors(pc, count)));
    all.extend([2, 1, 0].map(|count| vectors(ifcvf(q35), count)));
    all.extend([
        vectors(q35, 0),
        ifcvf(pc),
        Configuration {
            page_per_vq: Switch::On,
            ..pc
        },
        Configuration {
            page_per_vq: Switch::On,
            packed: Switch::On,
            ..ifcvf(q35)
        },
        Configuration {
            profile: Profile::Debug,
            ..q35
        },
        Configuration {
            profile: Profile::Debug,
            packed: Switch::On,
            event_idx: Switch::Off,
            indirect_desc: Switch::Off,
            vectors: Some(0),
            ..ifcvf(pc)
        },
    ]);
    all.extend([Machine::Microvm, Machine::MicrovmPcie].map(Configuration::on));
    all
}

const SWITCHES: [Switch; 2] = [Switch::Off, Switch::On];

/// The board for these switches: with any one of them it is the other.
fn board(switches: &[Switch]) -> Configuration {
    let on = switches.iter().filter(|switch| **switch == Switch::On);
    Configuration::on(match on.count() % 2 {
        0 => Machine::Q35,
        _ => Machine::Pc,
    })
}

/// Every combination of the rings' features.
fn rings() -> impl Iterator<Item = Configuration> {
    (0..8).map(|bits| {
        let [packed, event_idx, indirect_desc] = [0, 1, 2].map(|bit| SWITCHES[bits >> bit & 1]);
        Configuration {
            packed,
            event_idx,
            indirect_desc,
            ..board(&[packed, event_idx, indirect_desc])
        }
    })
}

/// Disks with very short queues, and with several very long ones.
fn disks() -> impl Iterator<Item = Configuration> {
    let short = (0..4).map(|bits| {
        let [packed, indirect_desc] = [0, 1].map(|bit| SWITCHES[bits >> bit & 1]);
        Configuration {
            packed,
            indirect_desc,
            disk_queue_size: Some(4),
            ..board(&[packed, indirect_desc])
        }
    });
    let long = SWITCHES.map(|packed| Configuration {
        packed,
        disk_queue_size: Some(1024),
        disk_queues: 4,
        ..board(&[packed])
    });
    short.chain(long)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_value_of_every_dimension_is_there_on_each_board() {
        let all = configurations();
        let names: HashSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), all.len());
        for machine in [Machine::Q35, Machine::Pc] {
            let has = |wanted: &dyn Fn(&Configuration) -> bool| {
                all.iter().any(|one| one.machine == machine && wanted(one))
            };
            for vectors in [None, Some(2), Some(1), Some(0)] {
                assert!(has(&|one| one.vectors == vectors));
            }
            for parent in [Parent::VpVdpa, Parent::Ifcvf] {
                assert!(has(&|one| one.parent == parent));
                assert!(has(&|one| (one.parent, one.vectors) == (parent, Some(0))));
            }
            for profile in [Profile::Compact, Profile::Debug] {
                assert!(has(&|one| one.profile == profile));
            }
            for (size, queues) in [(None, 1), (Some(4), 1), (Some(1024), 4)] {
                assert!(has(
                    &|one| (one.disk_queue_size, one.disk_queues) == (size, queues)
                ));
            }
            assert!(has(&|one| one.page_per_vq == Switch::On));
            // Each pair of two features' values.
            for values in SWITCHES
                .map(|one| SWITCHES.map(|other| (one, other)))
                .concat()
            {
                assert!(has(&|one| (one.packed, one.event_idx) == values));
                assert!(has(&|one| (one.packed, one.indirect_desc) == values));
                assert!(has(&|one| (one.event_idx, one.indirect_desc) == values));
            }
        }
    }

    #[test]
    fn every_combination_of_what_changes_the_ring_code_is_there() {
        let all = configurations();
        let rings: HashSet<_> = all
            .iter()
            .map(|one| (one.packed, one.event_idx, one.indirect_desc))
            .collect();
        assert_eq!(rings.len(), 8);
        let short = all.iter().filter(|one| one.disk_queue_size == Some(4));
        let short: HashSet<_> = short.map(|one| (one.packed, one.indirect_desc)).collect();
        assert_eq!(short.len(), 4);
        for packed in SWITCHES {
            let has = |wanted: &dyn Fn(&Configuration) -> bool| {
                all.iter().any(|one| one.packed == packed && wanted(one))
            };
            assert!(has(&|one| one.disk_queue_size == Some(1024)));
            for parent in [Parent::VpVdpa, Parent::Ifcvf] {
                assert!(has(&|one| one.parent == parent));
            }
            assert!(has(&|one| one.profile == Profile::Debug));
        }
        for parent in [Parent::VpVdpa, Parent::Ifcvf] {
            assert!(
                all.iter()
                    .any(|one| one.parent == parent && one.page_per_vq == Switch::On)
            );
        }
    }
}
