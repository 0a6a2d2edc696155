//! Binds functions to `vfio-pci` for the time of a run, and gives them back to the drivers they
//! had.
//!
//! Nothing here decides whether that is wise; that is for [`survey`](super::survey). Source: the
//! attributes `driver_override`, `unbind`, `bind` and `drivers_probe` of the kernel's
//! `ABI/testing/sysfs-bus-pci`.

use std::fmt;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::address::Address;
use super::function::{Function, folder};
use super::host::{Host, PCI};
use crate::interrupt::Interrupt;

/// The driver that hands functions on to user space.
pub(super) const VFIO_PCI: &str = "vfio-pci";

/// How long a driver may take to have a function.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it is looked whether it has.
const INTERVAL: Duration = Duration::from_millis(5);

/// One thing that is done to the host. It is shown as the command that does the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Loads a module.
    Load(&'static str),
    /// Writes a value to an attribute of sysfs, which is named from the root.
    Write {
        /// The attribute, without the `/` in front.
        attribute: String,
        /// What is written; empty clears it.
        value: String,
    },
}

/// Why a function is not bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// The host does not let it happen.
    #[error("{step}: {error}")]
    Step {
        /// What was tried.
        step: Step,
        /// What came of it.
        error: io::Error,
    },
    /// The function has gone since it was looked at.
    #[error("{0} has gone")]
    Gone(Address),
    /// All steps went well, and the driver has not taken it.
    #[error("{VFIO_PCI} does not take {0}; the kernel says why: sudo dmesg | tail")]
    NotTaken(Address),
    /// Somebody has asked the program to end.
    #[error("interrupted")]
    Interrupted,
}

/// Functions that are with `vfio-pci` as long as this lives. Dropping it gives them back.
#[derive(Debug)]
pub struct Binding<'a> {
    host: &'a Host,
    /// The functions as they were, in the order in which they were bound.
    former: Vec<Function>,
}

impl Step {
    /// What binds a function to `vfio-pci`, once that is loaded.
    pub(super) fn binding(function: &Function) -> Vec<Self> {
        let address = function.address;
        let unbind = function.driver.as_ref().map(|_| Self::unbind(address));
        let probe = Self::write(format!("{PCI}/drivers_probe"), address);
        let steps = [Some(Self::prefer(address, VFIO_PCI)), unbind, Some(probe)];
        steps.into_iter().flatten().collect()
    }

    /// What makes `now` again what it was as `former`.
    fn restoring(former: &Function, now: &Function) -> Vec<Self> {
        let address = former.address;
        let wanted = former.driver_override.as_deref();
        let changed = now.driver != former.driver;
        let unbind = (changed && now.driver.is_some()).then(|| Self::unbind(address));
        let driver = former.driver.as_ref().filter(|_| changed);
        let bind =
            driver.map(|driver| Self::write(format!("{PCI}/drivers/{driver}/bind"), address));
        let prefer = Self::prefer(address, wanted.unwrap_or_default());
        [Some(prefer), unbind, bind].into_iter().flatten().collect()
    }

    /// Says which driver alone may have the function.
    fn prefer(address: Address, driver: &str) -> Self {
        Self::write(format!("{}/driver_override", folder(address)), driver)
    }

    fn unbind(address: Address) -> Self {
        Self::write(format!("{}/driver/unbind", folder(address)), address)
    }

    fn write(attribute: String, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        Self::Write { attribute, value }
    }

    fn take(self, host: &Host) -> Result<(), BindError> {
        let done = match &self {
            Self::Load(module) => host.load(module),
            // A line, as `echo` writes it: an empty write would not reach the attribute at all.
            Self::Write { attribute, value } => host.write(attribute, &format!("{value}\n")),
        };
        done.map_err(|error| BindError::Step { step: self, error })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(module) => write!(f, "sudo modprobe {module}"),
            Self::Write { attribute, value } if value.is_empty() => {
                write!(f, "echo | sudo tee /{attribute}")
            }
            Self::Write { attribute, value } => write!(f, "echo {value} | sudo tee /{attribute}"),
        }
    }
}

impl<'a> Binding<'a> {
    /// Binds `functions`, in order. What has been done by the time of an error or of an interrupt
    /// is undone.
    ///
    /// # Errors
    ///
    /// A [`BindError`].
    pub fn new(
        host: &'a Host,
        functions: &[Address],
        interrupt: &Interrupt,
    ) -> Result<Self, BindError> {
        let former = Vec::with_capacity(functions.len());
        let mut binding = Self { host, former };
        if !functions.is_empty()
            && let Some(load) = loading(host)
        {
            load.take(host)?;
        }
        for &address in functions {
            if interrupt.happened() {
                return Err(BindError::Interrupted);
            }
            binding.add(address)?;
        }
        Ok(binding)
    }

    fn add(&mut self, address: Address) -> Result<(), BindError> {
        let function = self.host.function(address);
        let function = function.ok_or(BindError::Gone(address))?;
        if function.is_with_vfio() {
            return Ok(());
        }
        self.host.tell(format_args!(
            "binding {address} to {VFIO_PCI} ({})",
            of(&function)
        ));
        let steps = Step::binding(&function);
        // From the first step on there is something to undo.
        self.former.push(function);
        for step in steps {
            step.take(self.host)?;
        }
        let taken = wait(|| {
            self.host
                .function(address)
                .is_some_and(|f| f.is_with_vfio())
        });
        taken.then_some(()).ok_or(BindError::NotTaken(address))
    }
}

impl Drop for Binding<'_> {
    fn drop(&mut self) {
        while let Some(former) = self.former.pop() {
            give_back(self.host, &former);
        }
    }
}

/// Gives a function back, or says how somebody can who has to.
fn give_back(host: &Host, former: &Function) {
    let address = former.address;
    // One that has been pulled out comes back without a memory.
    let Some(now) = host.function(address) else {
        return;
    };
    let steps = Step::restoring(former, &now);
    let done = steps
        .clone()
        .into_iter()
        .try_for_each(|step| step.take(host));
    let is_back = || {
        host.function(address)
            .is_none_or(|now| now.driver == former.driver)
    };
    if done.is_ok() && wait(is_back) {
        host.tell(format_args!("{address} is as before ({})", of(former)));
        return;
    }
    let reason = done.err().map(|error| format!(": {error}"));
    host.tell(format_args!(
        "{address} could not be given back{}. By hand:",
        reason.unwrap_or_default()
    ));
    for step in steps {
        host.tell(format_args!("    {step}"));
    }
}

/// What makes `vfio-pci` available, unless it is.
pub(super) fn loading(host: &Host) -> Option<Step> {
    let loaded = host.exists(&format!("{PCI}/drivers/{VFIO_PCI}"));
    (!loaded).then_some(Step::Load(VFIO_PCI))
}

fn of(function: &Function) -> String {
    match &function.driver {
        Some(driver) => format!("driver {driver}"),
        None => "no driver".into(),
    }
}

/// Waits until `happened`, and says whether it has.
fn wait(happened: impl Fn() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    loop {
        if happened() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(INTERVAL);
    }
}
