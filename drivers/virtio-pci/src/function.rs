//! A modern virtio function with its structures mapped.

use alloc::vec;
use alloc::vec::Vec;

use pci::{Claim, ResourceError};
use vdpa::Features;
use vdpa::config::FieldLayout;
use vdpa::ops::OpError;
use vdpa::platform::PhysAddr;
use virtq::{Doorbell, NotifyFormat};

use super::capability::{Layout, LayoutError};
use super::common::CommonConfig;
use super::config_fields;
use super::window::Window;

/// How often a configuration that changes while it is read is read again.
const CONFIG_ATTEMPTS: usize = 16;

/// Why a function's structures cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The function does not say properly where they are.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The kernel does not map them.
    #[error("the function's registers cannot be mapped: {0}")]
    Map(#[from] ResourceError),
}

/// The mapped structures of a function.
#[derive(Debug)]
pub struct VirtioFunction {
    common: CommonConfig,
    notify: Window,
    /// Where the notification structure starts on the memory bus.
    pub(super) notify_base: PhysAddr,
    pub(super) layout: Layout,
    isr: Window,
    device: Option<Window>,
}

impl VirtioFunction {
    /// Finds and maps the structures of the function, which lie in some of `bars`.
    ///
    /// # Errors
    /// [`OpenError`], if it is no modern virtio function or a malformed one.
    ///
    /// # Safety
    /// Whatever is written to the registers, the device finds in memory only what is lent to it, as
    /// [`VdpaOps`](vdpa::VdpaOps) says.
    pub unsafe fn open(claim: &Claim, bars: &[u8]) -> Result<Self, OpenError> {
        let layout = Layout::read(claim, bars)?;
        let window = |place| Window::map(claim, place);
        let bar = claim.memory_bar(layout.notify.bar)?;
        let bar_base = bar.address.ok_or(ResourceError::Unassigned)?;
        Ok(Self {
            common: CommonConfig::new(window(layout.common)?),
            notify: window(layout.notify)?,
            notify_base: PhysAddr(bar_base + layout.notify.offset),
            isr: window(layout.isr)?,
            device: layout.device.map(window).transpose()?,
            layout,
        })
    }

    /// The common configuration.
    #[must_use]
    pub fn common(&self) -> &CommonConfig {
        &self.common
    }

    /// The ISR status register.
    #[must_use]
    pub fn isr(&self) -> IsrStatus {
        IsrStatus(self.isr.clone())
    }

    /// The notification register of a queue (VIRTIO 1.2, 4.1.4.4); `None`, if `notify_off` leads
    /// out of the notification structure or to an odd address.
    #[must_use]
    pub fn doorbell(&self, queue: u16, notify_off: u16, format: NotifyFormat) -> Option<Doorbell> {
        let offset = self.notify_offset(notify_off);
        let width = match format {
            NotifyFormat::Index => 2,
            NotifyFormat::WideIndex | NotifyFormat::IndexAndPlace => 4,
        };
        let inside = offset + width <= self.notify.len();
        inside
            .then(|| self.notify.doorbell(offset, queue, format))
            .flatten()
    }

    /// Where in the notification structure a queue's register is.
    pub(super) fn notify_offset(&self, notify_off: u16) -> u64 {
        u64::from(notify_off) * u64::from(self.layout.notify_multiplier)
    }

    /// The size of the device-specific configuration in bytes.
    #[must_use]
    pub fn config_size(&self) -> u32 {
        self.device
            .as_ref()
            .map_or(0, |window| u32::try_from(window.len()).unwrap_or(u32::MAX))
    }

    /// Reads from the device-specific configuration until it did not change meanwhile.
    ///
    /// The fields of a known device type are read in the widths that VIRTIO 1.2, 4.1.3.1 demands,
    /// if the features that they come with are among those `offered` (2.5.1); what is in no such
    /// field is 0. Of any other type, 1, 2 or 4 aligned bytes, or 8, are one field, and anything
    /// else is an array of bytes.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`]; [`OpError::Timeout`], if it does not stop changing.
    pub fn read_config(
        &self,
        device_type: u32,
        offered: Features,
        offset: u32,
        bytes: &mut [u8],
    ) -> Result<(), OpError> {
        let window = self.config_window(offset, bytes.len())?;
        let fields = config_fields::of(device_type);
        for _ in 0..CONFIG_ATTEMPTS {
            let before = self.common.config_generation();
            match fields {
                Some(fields) => read_fields(window, fields, offered, u64::from(offset), bytes),
                None => read_field(window, u64::from(offset), bytes),
            }
            if self.common.config_generation() == before {
                return Ok(());
            }
        }
        Err(OpError::Timeout)
    }

    /// Reads all known fields that the device has.
    pub(super) fn copy_config(
        &self,
        device_type: u32,
        offered: Features,
    ) -> Result<Vec<u8>, OpError> {
        let last = config_fields::of(device_type).and_then(<[_]>::last);
        let len = last.map_or(0, |last| last.offset + u32::from(last.width));
        let len = len.min(self.config_size());
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read_config(device_type, offered, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes to the device-specific configuration, in the same widths.
    ///
    /// # Errors
    /// [`OpError::OutOfRange`].
    pub fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<(), OpError> {
        let window = self.config_window(offset, bytes.len())?;
        write_field(window, u64::from(offset), bytes);
        Ok(())
    }

    fn config_window(&self, offset: u32, len: usize) -> Result<&Window, OpError> {
        let window = self.device.as_ref().ok_or(OpError::OutOfRange)?;
        let len = u64::try_from(len).map_err(|_| OpError::OutOfRange)?;
        let end = u64::from(offset)
            .checked_add(len)
            .ok_or(OpError::OutOfRange)?;
        if end <= window.len() {
            Ok(window)
        } else {
            Err(OpError::OutOfRange)
        }
    }
}

/// Reads what of the fields lies in the range.
fn read_fields(
    window: &Window,
    fields: &[FieldLayout],
    offered: Features,
    start: u64,
    bytes: &mut [u8],
) {
    bytes.fill(0);
    let end = start + bytes.len() as u64;
    for field in fields.iter().filter(|field| field.exists(offered)) {
        let width = u64::from(field.width);
        for at in (0..u64::from(field.count)).map(|n| u64::from(field.offset) + n * width) {
            if at + width <= start || end <= at || window.len() < at + width {
                continue;
            }
            let value = match width {
                1 => u32::from(window.read8(at)),
                2 => u32::from(window.read16(at)),
                _ => window.read32(at),
            };
            for (at, byte) in (at..at + width).zip(value.to_le_bytes()) {
                let index = at
                    .checked_sub(start)
                    .and_then(|at| usize::try_from(at).ok());
                if let Some(place) = index.and_then(|index| bytes.get_mut(index)) {
                    *place = byte;
                }
            }
        }
    }
}

fn read_field(window: &Window, offset: u64, bytes: &mut [u8]) {
    match width(offset, bytes.len()) {
        4 => {
            for (at, word) in (offset..).step_by(4).zip(bytes.chunks_exact_mut(4)) {
                word.copy_from_slice(&window.read32(at).to_le_bytes());
            }
        }
        2 => bytes.copy_from_slice(&window.read16(offset).to_le_bytes()),
        _ => {
            for (at, byte) in (offset..).zip(bytes) {
                *byte = window.read8(at);
            }
        }
    }
}

fn write_field(window: &Window, offset: u64, bytes: &[u8]) {
    match (width(offset, bytes.len()), bytes) {
        (4, _) => {
            for (at, word) in (offset..).step_by(4).zip(bytes.chunks_exact(4)) {
                let word = word.try_into().expect("chunks of four bytes");
                window.write32(at, u32::from_le_bytes(word));
            }
        }
        (2, &[low, high]) => window.write16(offset, u16::from_le_bytes([low, high])),
        _ => {
            for (at, byte) in (offset..).zip(bytes) {
                window.write8(at, *byte);
            }
        }
    }
}

/// The width in which a field of `len` bytes is accessed.
fn width(offset: u64, len: usize) -> u64 {
    match len {
        4 | 8 if offset.is_multiple_of(4) => 4,
        2 if offset.is_multiple_of(2) => 2,
        _ => 1,
    }
}

/// Why the device interrupts, as far as it says so; reading takes the reasons back
/// (VIRTIO 1.2, 4.1.4.5). It may be read in an interrupt handler.
#[derive(Clone, Debug)]
pub struct IsrStatus(Window);

impl IsrStatus {
    /// A queue has used buffers.
    pub const QUEUE: u8 = 1;
    /// The configuration has changed.
    pub const CONFIG: u8 = 2;

    /// Takes the reasons; `None` if every bit is set, because then nobody answers.
    #[must_use]
    pub fn take(&self) -> Option<u8> {
        let bits = self.0.read8(0);
        (bits != u8::MAX).then_some(bits)
    }
}
