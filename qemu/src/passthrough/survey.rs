//! Looks at a host before functions of it are given away: everything that is missing, at once.

use std::fmt;

use thiserror::Error;

use super::address::Address;
use super::binding::{BindError, Binding, Step, VFIO_PCI, loading};
use super::finding::{Cpu, Finding, Gravity};
use super::function::{Function, folder};
use super::host::{Host, PCI};
use super::ids::Kind;
use super::usage::uses;
use super::{Binder, Caution, Request};
use crate::interrupt::Interrupt;

/// What a guest needs of locked memory beyond its own: the firmware's and the devices' ROMs, with
/// room to spare.
const SLACK: u64 = 64 << 20;

/// The device file that all groups share.
const CONTAINER: &str = "dev/vfio/vfio";

/// What there is to know of a host when functions of it are to be passed through.
#[derive(Debug)]
pub struct Survey<'a> {
    host: &'a Host,
    request: Request,
    /// The functions asked for, where they exist.
    functions: Vec<Function>,
    /// What kind each function is that was asked for.
    kinds: Vec<Kind>,
    /// What speaks against it.
    findings: Vec<Finding>,
    /// The functions to bind, those of the same groups among them.
    to_bind: Vec<Function>,
}

/// Things that have to be mended before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} of the above must be mended before anything is passed through")]
pub struct NotReady(usize);

impl<'a> Survey<'a> {
    /// Looks at `host`. Nothing is changed.
    pub fn new(host: &'a Host, request: &Request) -> Self {
        let mut survey = Self {
            host,
            request: request.clone(),
            functions: Vec::new(),
            kinds: Vec::new(),
            findings: Vec::new(),
            to_bind: Vec::new(),
        };
        if request.functions.is_empty() {
            return survey;
        }
        for &address in &request.functions {
            match host.function(address) {
                Some(function) => survey.look_at(function),
                None => survey.miss(address),
            }
        }
        survey.look_at_iommu();
        survey.look_at_groups();
        survey.look_at_rights();
        survey
    }

    /// What the functions are to the guest. One that is not there is taken for a network card, and
    /// one that the guest has no driver for is nothing.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// What was found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What would be done to the host.
    pub fn steps(&self) -> Vec<Step> {
        let load = loading(self.host).filter(|_| !self.to_bind.is_empty());
        let binding = self.to_bind.iter().flat_map(Step::binding);
        load.into_iter().chain(binding).collect()
    }

    /// Whether the functions can be passed through.
    ///
    /// # Errors
    ///
    /// [`NotReady`] when something has to be mended.
    pub fn verdict(&self) -> Result<(), NotReady> {
        let against = |finding: &&Finding| self.weigh(finding) != Gravity::Warning;
        match self.findings.iter().filter(against).count() {
            0 => Ok(()),
            count => Err(NotReady(count)),
        }
    }

    /// Does what [`Survey::steps`] shows.
    ///
    /// # Errors
    ///
    /// A [`BindError`]; then everything is as before.
    pub fn bind(&self, interrupt: &Interrupt) -> Result<Binding<'a>, BindError> {
        let addresses: Vec<Address> = self.to_bind.iter().map(|f| f.address).collect();
        Binding::new(self.host, &addresses, interrupt)
    }

    /// Looks at the same host with the same request again: some of it can be seen only once
    /// functions are bound.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(self.host, &self.request)
    }

    /// How much a finding weighs after what somebody has asked for.
    fn weigh(&self, finding: &Finding) -> Gravity {
        match (finding.gravity(), self.request.caution) {
            (Gravity::Refused, Caution::Overruled) => Gravity::Warning,
            (gravity, _) => gravity,
        }
    }

    fn miss(&mut self, address: Address) {
        let mut candidates = self.host.functions();
        let is_one =
            |f: &Function| f.ids.taken().is_some() && uses(self.host, f.address).is_empty();
        candidates.retain(is_one);
        self.kinds.push(Kind::Net);
        self.findings.push(Finding::Absent {
            address,
            candidates,
        });
    }

    fn look_at(&mut self, function: Function) {
        let (address, ids) = (function.address, function.ids);
        if ids.is_bridge() {
            self.findings.push(Finding::Bridge(address));
            return;
        }
        match ids.taken() {
            Some((_, kind)) => self.kinds.push(kind),
            None => self.findings.push(Finding::NoDriver { address, ids }),
        }
        if function.vfs > 0 {
            let count = function.vfs;
            self.findings.push(Finding::VfsEnabled { address, count });
        }
        let uses = uses(self.host, address);
        if !uses.is_empty() {
            self.findings.push(Finding::InUse { address, uses });
        }
        if !function.is_with_vfio() {
            match self.request.binder {
                Binder::Somebody => {
                    let binding = Step::binding(&function);
                    let steps = loading(self.host).into_iter().chain(binding).collect();
                    let function = function.clone();
                    self.findings.push(Finding::NotBound { function, steps });
                }
                Binder::Program => self.to_bind.push(function.clone()),
            }
        }
        self.functions.push(function);
    }

    fn look_at_iommu(&mut self) {
        if self.host.names("sys/kernel/iommu_groups").is_empty() {
            self.findings.push(Finding::IommuOff(self.cpu()));
            return;
        }
        let without = self.functions.iter().filter(|f| f.group.is_none());
        let without = without.map(|function| Finding::NoGroup(function.address));
        self.findings.extend(without);
        if !self.remaps_interrupts() {
            self.findings.push(Finding::NoInterruptRemapping);
        }
    }

    fn cpu(&self) -> Cpu {
        let processors = self.host.text("proc/cpuinfo").unwrap_or_default();
        let words = self.host.text("proc/cmdline").unwrap_or_default();
        let asked = words
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("intel_iommu="))
            .any(|value| value.split(',').any(|value| value == "on"));
        if processors.contains("AuthenticAMD") {
            Cpu::Amd
        } else if !processors.contains("GenuineIntel") {
            Cpu::Other
        } else if asked {
            Cpu::IntelAsked
        } else {
            Cpu::Intel
        }
    }

    /// Whether the IOMMU keeps a guest from raising interrupts that are not its own, or somebody
    /// has said that it need not. Linux marks the interrupt controllers behind it with `IR-`.
    fn remaps_interrupts(&self) -> bool {
        let parameter = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
        let interrupts = self.host.text("proc/interrupts").unwrap_or_default();
        interrupts.is_empty()
            || interrupts.contains("IR-")
            || self.host.text(parameter).is_some_and(|value| value == "Y")
    }

    /// Every other function of a group goes with it, so nobody else may use one.
    fn look_at_groups(&mut self) {
        let mut seen = Vec::new();
        let grouped: Vec<(Address, u32)> = self
            .functions
            .iter()
            .filter_map(|function| Some((function.address, function.group?)))
            .collect();
        for (address, group) in grouped {
            if seen.contains(&group) {
                continue;
            }
            seen.push(group);
            let members = self
                .host
                .names(&format!("sys/kernel/iommu_groups/{group}/devices"));
            let others = members
                .iter()
                .filter_map(|name| self.host.function(name.parse().ok()?))
                .filter(|other| {
                    !self.request.functions.contains(&other.address) && !is_free(other)
                });
            let (with_it, offenders): (Vec<_>, Vec<_>) = others.partition(|other| {
                self.request.binder == Binder::Program && is_known_idle(self.host, other)
            });
            self.to_bind.extend(with_it);
            if !offenders.is_empty() {
                self.findings.push(Finding::GroupShared {
                    address,
                    group,
                    offenders,
                });
            }
        }
    }

    fn look_at_rights(&mut self) {
        let denied = self.to_bind.iter().find(|function| {
            let attribute = format!("{}/driver_override", folder(function.address));
            !self.host.permits(&attribute)
        });
        if let Some(function) = denied {
            let finding = Finding::BindingDenied(function.address);
            self.findings.push(finding);
        }
        // Before the module is there, its device files cannot be.
        if self.host.exists(&format!("{PCI}/drivers/{VFIO_PCI}")) {
            self.look_at_node(CONTAINER);
        }
        let mut groups: Vec<u32> = self
            .functions
            .iter()
            .filter(|function| function.is_with_vfio())
            .filter_map(|function| function.group)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            self.look_at_node(&format!("dev/vfio/{group}"));
        }
        self.look_at_locked_memory();
    }

    fn look_at_node(&mut self, node: &str) {
        if !self.host.exists(node) {
            self.findings.push(Finding::NodeAbsent(format!("/{node}")));
        } else if !self.host.permits(node) {
            self.findings.push(Finding::NodeDenied(format!("/{node}")));
        }
    }

    fn look_at_locked_memory(&mut self) {
        let needed = self.request.memory.bytes() + SLACK;
        if let Some(limit) = self.locked_memory()
            && limit < needed
        {
            self.findings.push(Finding::LockedMemory { limit, needed });
        }
    }

    /// How many bytes this process may lock; `None` when nothing limits it.
    fn locked_memory(&self) -> Option<u64> {
        /// `CAP_IPC_LOCK` of `capabilities(7)`.
        const IPC_LOCK: u64 = 1 << 14;
        let status = self.host.text("proc/self/status").unwrap_or_default();
        let capabilities = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        if capabilities.is_some_and(|mask| mask & IPC_LOCK != 0) {
            return None;
        }
        let limits = self.host.text("proc/self/limits")?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max locked memory"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// What is shown to somebody who passes functions through, a line of what each is and then
/// everything found.
impl fmt::Display for Survey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for function in &self.functions {
            writeln!(f, "passing through {function}")?;
        }
        for finding in &self.findings {
            writeln!(f, "{}: {finding}", self.weigh(finding))?;
            for line in finding.remedy() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

/// Whether the kernel's vfio lets a function stay in a group that it gives away.
fn is_free(function: &Function) -> bool {
    let driver = function.driver.as_deref();
    function.ids.is_bridge() || function.is_with_vfio() || matches!(driver, None | Some("pci-stub"))
}

/// Whether the host surely does nothing with a function. That can be seen of network cards and
/// disks alone.
fn is_known_idle(host: &Host, function: &Function) -> bool {
    let base_class = function.ids.class >> 16;
    matches!(base_class, 0x01 | 0x02)
        && function.vfs == 0
        && uses(host, function.address).is_empty()
}
