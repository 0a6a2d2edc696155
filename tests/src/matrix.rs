//! The machines that the guest tests run on.
//!
//! Not the full product: it would repeat what differs in nothing. Interrupts and configuration
//! space depend on the board, ring code on the ring's features, and neither knows of the other. So
//! one machine shows something of each, and the rule is
//! - every combination of ring format, event index and indirect descriptors at least once, because
//!   the ring code takes other ways with each; each value, and each pair of values, on either board;
//! - on either board every number of MSI-X vectors, from one for each queue down to none, because
//!   the parent drivers take other ways: `vp_vdpa` on one, `ifcvf` on the other, and without any on
//!   both;
//! - disks whose queues are far shorter than what the tests have in flight, or as long as QEMU
//!   makes them, or several, in either ring format, and on either board; each also where every
//!   queue has its vector;
//! - either parent driver with a page for each doorbell;
//! - the kernel as it is delivered on the usual machine, with nothing special;
//! - the kernel with debug assertions once on either board, so that each ring format, everything
//!   on, everything off and either parent driver are among them: it takes ten times as long, on the
//!   same ways through the code;
//! - the tests of simulated devices alone, to which a machine makes no difference, on the usual one:
//!   once as the kernel is delivered, and once with debug assertions;
//! - each IOMMU before devices of both ring formats, with and without vectors, with either parent
//!   driver: what it translates and remaps depends on neither ring code nor parent, but both must
//!   work behind it; on these machines the kernel is told to do without no IOMMU;
//! - the microvm board once with its devices in memory, and once with PCI.

use std::fmt;

use qemu::build::Profile;
use qemu::device::{Switch, VirtioOptions};
use qemu::iommu::Iommu;
use qemu::machine::Machine;

use crate::run::{skip_simulated, uses_the_machine};

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
    /// What stands between the devices and the memory.
    pub iommu: Option<Iommu>,
    /// How Intel's finds its tables.
    pub iommu_mode: IommuMode,
}

/// How Intel's IOMMU finds the tables of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IommuMode {
    /// By the requester id.
    #[default]
    Legacy,
    /// By the requester id and a PASID.
    Scalable,
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
            iommu: None,
            iommu_mode: IommuMode::Legacy,
        }
    }

    /// The virtio properties of its devices.
    pub fn virtio(&self) -> VirtioOptions {
        let wanted = match (self.parent, self.iommu) {
            (Parent::VpVdpa, None) => VirtioOptions::default(),
            (Parent::Ifcvf, _) | (_, Some(_)) => VirtioOptions::on_platform(),
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

    /// What QEMU is told of it beside.
    pub fn extra(&self) -> &'static [&'static str] {
        match self.iommu_mode {
            IommuMode::Legacy => &[],
            IommuMode::Scalable => &["-global", "intel-iommu.x-scalable-mode=on"],
        }
    }

    /// What the guest is told of it on the kernel's command line.
    pub fn append(&self) -> String {
        let vectors = self.vectors.map(|vectors| format!("vectors={vectors}"));
        let no_pci = (!self.has_pci()).then(|| "pci=none".into());
        let parent = (self.parent == Parent::Ifcvf).then(|| "ifcvf=qemu".into());
        let pages = (self.page_per_vq == Switch::On).then(|| "page_per_vq=on".into());
        let skip = (!self.is_usual()).then(skip_simulated);
        let iommu = self.iommu.map(|_| "iommu=required".into());
        [vectors, no_pci, parent, pages, iommu, skip]
            .into_iter()
            .flatten()
            .collect::<Vec<String>>()
            .join(" ")
    }

    /// Whether it runs the guest's test of this name.
    pub fn runs(&self, name: &str) -> bool {
        self.is_usual() || uses_the_machine(name)
    }

    /// Whether nothing about it is special but how the kernel is built.
    fn is_usual(&self) -> bool {
        let profile = self.profile;
        *self
            == Self {
                profile,
                ..Self::on(Machine::Q35)
            }
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
        match (self.iommu, self.iommu_mode) {
            (None, _) => Ok(()),
            (Some(_), IommuMode::Scalable) => f.write_str("/iommu=scalable"),
            (Some(Iommu::Intel), IommuMode::Legacy) => f.write_str("/iommu=intel"),
            (Some(Iommu::Amd), IommuMode::Legacy) => f.write_str("/iommu=amd"),
            (Some(Iommu::Virtio), IommuMode::Legacy) => f.write_str("/iommu=virtio"),
        }
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
    vec![
        // With debug assertions. They take longest, so others run beside them if they begin.
        q35.debug(),
        ifcvf(pc).rings(ON, OFF, OFF).vectors(0).debug(),
        // Every combination of the rings' features: with any one of them it is the other board.
        ifcvf(q35)
            .rings(OFF, OFF, OFF)
            .vectors(2)
            .behind(Iommu::Intel),
        pc.rings(OFF, OFF, ON).vectors(2).disks(4, 1),
        pc.rings(OFF, ON, OFF).vectors(1).disks(4, 1).page_per_vq(),
        q35.rings(OFF, ON, ON),
        pc.rings(ON, OFF, OFF).vectors(0),
        ifcvf(q35)
            .rings(ON, OFF, ON)
            .vectors(1)
            .page_per_vq()
            .behind(Iommu::Amd),
        ifcvf(q35).rings(ON, ON, OFF).vectors(0).disks(4, 1),
        ifcvf(pc).rings(ON, ON, ON).disks(4, 1),
        // Queues as long as can be.
        q35.rings(ON, OFF, ON).disks(1024, 4).behind_scalable(),
        pc.rings(OFF, ON, ON).disks(1024, 4).behind(Iommu::Virtio),
        // Without vectors, where the other driver has been.
        q35.rings(ON, ON, OFF).vectors(0).behind(Iommu::Virtio),
        Configuration::on(Machine::Microvm),
        Configuration::on(Machine::MicrovmPcie),
    ]
}

const OFF: Switch = Switch::Off;
const ON: Switch = Switch::On;

impl Configuration {
    /// With rings of this format, event index and indirect descriptors.
    const fn rings(self, packed: Switch, event_idx: Switch, indirect_desc: Switch) -> Self {
        Self {
            packed,
            event_idx,
            indirect_desc,
            ..self
        }
    }

    /// With so many vectors for each device.
    const fn vectors(self, count: u16) -> Self {
        Self {
            vectors: Some(count),
            ..self
        }
    }

    /// With so many queues of this size for each disk.
    const fn disks(self, size: u16, queues: u16) -> Self {
        Self {
            disk_queue_size: Some(size),
            disk_queues: queues,
            ..self
        }
    }

    /// With a page for each doorbell.
    const fn page_per_vq(self) -> Self {
        Self {
            page_per_vq: ON,
            ..self
        }
    }

    /// Behind an IOMMU.
    const fn behind(self, iommu: Iommu) -> Self {
        Self {
            iommu: Some(iommu),
            ..self
        }
    }

    /// Behind Intel's, in scalable mode.
    const fn behind_scalable(self) -> Self {
        Self {
            iommu_mode: IommuMode::Scalable,
            ..self.behind(Iommu::Intel)
        }
    }

    /// With debug assertions.
    const fn debug(self) -> Self {
        Self {
            profile: Profile::Test,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SWITCHES: [Switch; 2] = [Switch::Off, Switch::On];

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
            for count in [2, 1, 0] {
                let parent = match machine {
                    Machine::Pc => Parent::VpVdpa,
                    _ => Parent::Ifcvf,
                };
                assert!(has(
                    &|one| (one.parent, one.vectors) == (parent, Some(count))
                ));
            }
            for profile in [Profile::Compact, Profile::Test] {
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
    fn every_test_runs_with_each_profile_and_those_with_devices_on_every_machine() {
        for profile in [Profile::Compact, Profile::Test] {
            let runs = |one: &Configuration| one.profile == profile && one.runs("simulators::x");
            assert_eq!(configurations().into_iter().filter(runs).count(), 1);
        }
        for one in configurations() {
            assert!(one.runs("blk::x") && one.runs("heap::x") && one.runs("conformance::qemu_x"));
            assert_eq!(one.append().contains("skip="), !one.runs("simulators::x"));
        }
    }

    #[test]
    fn every_iommu_is_there_and_every_board_and_parent_without() {
        let all = configurations();
        let of = |iommu| all.iter().filter(move |one| one.iommu == Some(iommu));
        for iommu in [Iommu::Intel, Iommu::Amd, Iommu::Virtio] {
            assert!(of(iommu).next().is_some(), "{iommu:?}");
        }
        let is_scalable = |one: &&Configuration| one.iommu_mode == IommuMode::Scalable;
        assert_eq!(of(Iommu::Intel).filter(is_scalable).count(), 1);
        assert!(of(Iommu::Virtio).any(|one| one.machine == Machine::Pc));
        let none = |one: &&Configuration| one.iommu.is_none();
        let without: HashSet<_> = all.iter().filter(none).collect();
        for parent in [Parent::VpVdpa, Parent::Ifcvf] {
            for machine in [Machine::Q35, Machine::Pc] {
                let has = |one: &&Configuration| (one.parent, one.machine) == (parent, machine);
                assert!(without.iter().any(has));
            }
        }
        for one in &all {
            let is_told = one.append().contains("iommu=required");
            assert_eq!(is_told, one.iommu.is_some(), "{one}");
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
        for event_idx in SWITCHES {
            let has =
                |one: &Configuration| one.disk_queue_size == Some(4) && one.event_idx == event_idx;
            assert!(all.iter().any(has));
        }
        let short = Some(4);
        assert!(
            all.iter()
                .any(|one| (one.disk_queue_size, one.vectors) == (short, None))
        );
        for machine in [Machine::Q35, Machine::Microvm, Machine::MicrovmPcie] {
            assert!(all.contains(&Configuration::on(machine)));
        }
        for packed in SWITCHES {
            let has = |wanted: &dyn Fn(&Configuration) -> bool| {
                all.iter().any(|one| one.packed == packed && wanted(one))
            };
            assert!(has(
                &|one| (one.disk_queue_size, one.vectors) == (Some(1024), None)
            ));
            for parent in [Parent::VpVdpa, Parent::Ifcvf] {
                assert!(has(&|one| one.parent == parent));
            }
            assert!(has(&|one| one.profile == Profile::Test));
        }
        for parent in [Parent::VpVdpa, Parent::Ifcvf] {
            assert!(
                all.iter()
                    .any(|one| one.parent == parent && one.page_per_vq == Switch::On)
            );
        }
    }
}
