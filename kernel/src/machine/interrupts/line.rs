//! An interrupt line that a driver has.

#[cfg(feature = "iommu")]
use alloc::boxed::Box;
use core::fmt;

#[cfg(feature = "iommu")]
use iommu::{InterruptSource, Iommus, RemappedInterrupt};
use vdpa::platform::{
    Callback, ConnectedLine, InterruptLine as Wanted, InterruptVector, NoLine, Signal,
};

use super::io_apic;
use super::vectors::DeviceVector;
use crate::pure::acpi::{InterruptLine, InterruptLines, Polarity, Trigger};

/// The line is masked before its vector is free.
struct Connected {
    input: Input,
    /// What an IOMMU lets the I/O APIC raise.
    #[cfg(feature = "iommu")]
    _remapped: Option<Box<dyn RemappedInterrupt>>,
    _vector: DeviceVector,
}

/// An input of an I/O APIC that is routed.
struct Input(InterruptLine);

/// Routes a line to a vector whose handler is called.
pub(crate) fn connect(
    lines: &InterruptLines,
    #[cfg(feature = "iommu")] iommus: &Iommus,
    wanted: Wanted,
    handler: Callback,
) -> Result<impl ConnectedLine + use<>, NoLine> {
    let number = wanted.number;
    let line = match wanted.signal {
        Signal::Unstated => lines.usual(number),
        Signal::Rising => lines.line(number, Trigger::Edge, Polarity::High),
        Signal::Falling => lines.line(number, Trigger::Edge, Polarity::Low),
        Signal::High => lines.line(number, Trigger::Level, Polarity::High),
        Signal::Low => lines.line(number, Trigger::Level, Polarity::Low),
    };
    let line = line.ok_or(NoLine)?;
    let vector = DeviceVector::for_line(handler).map_err(|_| NoLine)?;
    let redirection = io_apic::redirection(vector.message());
    #[cfg(feature = "iommu")]
    let (redirection, remapped) = {
        let interrupt = vector.interrupt(line.trigger == Trigger::Level);
        let source = InterruptSource::IoApic(line.io_apic_id);
        let remapped = iommus.remap(source, interrupt).transpose();
        let remapped = remapped.map_err(|_| NoLine)?;
        let entry = remapped.as_ref().map(|entry| entry.redirection());
        (entry.unwrap_or(redirection), remapped)
    };
    io_apic::route(line, redirection).map_err(|_| NoLine)?;
    Ok(Connected {
        input: Input(line),
        #[cfg(feature = "iommu")]
        _remapped: remapped,
        _vector: vector,
    })
}

impl ConnectedLine for Connected {}

impl Drop for Input {
    fn drop(&mut self) {
        io_apic::mask(self.0);
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.input.0)
    }
}
