//! The machines that the guest tests run on.
//!
//! Not the full product: it would repeat what differs in nothing. The rule is
//! - the optimized kernel on either board with every combination of ring format, event index and
//!   indirect descriptors, because the ring code takes other ways with each;
//! - the same kernel on either board with fewer MSI-X vectors than queues, down to none, because the
//!   parent driver takes other ways; the ring features have no part in that;
//! - the same kernel with disks whose queues are far shorter than what the tests have in flight, or as
//!   long as QEMU makes them, or several, in either ring format;
//! - the parent driver of the IFC VF on QEMU's devices, on one board with every number of vectors, on the other
//!   once;
//! - either parent driver with a page for each doorbell;
//! - the kernel with debug assertions twice on either board, so that each ring format, everything off and either
//!   parent driver are among them: it takes ten times as long, on the same ways through the code;
//! - the microvm board once, for its interrupt and timer hardware. Its firmware describes no PCI to the
//!   kernel, so the tests that need a device do not apply there.

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
    /// The optimized kernel with all features.
    const fn on(machine: Machine) -> Self {
        Self {
            machine,
            profile: Profile::Release,
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
    let mut all = Vec::new();
    for machine in [Machine::Q35, Machine::Pc] {
        let on = Configuration::on(machine);
        for packed in [Switch::Off, Switch::On] {
            for event_idx in [Switch::On, Switch::Off] {
                for indirect_desc in [Switch::On, Switch::Off] {
                    all.push(Configuration {
                        packed,
                        event_idx,
                        indirect_desc,
                        ..on
                    });
                }
            }
        }
        all.extend([2, 1, 0].map(|vectors| Configuration {
            vectors: Some(vectors),
            ..on
        }));
        for packed in [Switch::Off, Switch::On] {
            for indirect_desc in [Switch::On, Switch::Off] {
                all.push(Configuration {
                    packed,
                    indirect_desc,
                    disk_queue_size: Some(4),
                    ..on
                });
            }
            all.push(Configuration {
                packed,
                disk_queue_size: Some(1024),
                disk_queues: 4,
                ..on
            });
        }
        all.push(Configuration {
            page_per_vq: Switch::On,
            ..on
        });
        let ifcvf = Configuration {
            parent: Parent::Ifcvf,
            ..on
        };
        all.push(ifcvf);
        if machine == Machine::Q35 {
            all.extend([2, 1, 0].map(|vectors| Configuration {
                vectors: Some(vectors),
                ..ifcvf
            }));
            all.push(Configuration {
                page_per_vq: Switch::On,
                packed: Switch::On,
                ..ifcvf
            });
        }
        let debug = Configuration {
            profile: Profile::Debug,
            ..on
        };
        if machine == Machine::Q35 {
            all.push(debug);
            all.push(Configuration {
                packed: Switch::On,
                parent: Parent::Ifcvf,
                ..debug
            });
        } else {
            all.push(Configuration {
                packed: Switch::On,
                ..debug
            });
            all.push(Configuration {
                event_idx: Switch::Off,
                indirect_desc: Switch::Off,
                vectors: Some(0),
                ..debug
            });
        }
    }
    all.extend([Machine::Microvm, Machine::MicrovmPcie].map(Configuration::on));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_value_of_every_dimension_is_there_once_for_each_board() {
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
            }
            for profile in [Profile::Release, Profile::Debug] {
                assert!(has(&|one| one.profile == profile));
            }
            for packed in [Switch::On, Switch::Off] {
                for event_idx in [Switch::On, Switch::Off] {
                    for indirect_desc in [Switch::On, Switch::Off] {
                        let ring = (packed, event_idx, indirect_desc);
                        assert!(has(&|one| {
                            (one.packed, one.event_idx, one.indirect_desc) == ring
                        }));
                    }
                }
            }
        }
    }
}
