//! Notification registers that can be given away, because nothing else lies on their page.

use pci::Msix;
use vdpa::ops::NotificationArea;
use vdpa::platform::PhysAddr;

use super::function::VirtioFunction;

/// The smallest part of memory that a processor or an IOMMU can give away.
const PAGE: u64 = 4096;

impl VirtioFunction {
    /// The page of a queue's notification register, if it starts the page and nothing but that
    /// register is used there: no other queue's register, no other structure, no interrupt table.
    /// `others` are the `notify_off` of the other queues (VIRTIO 1.2, 4.1.4.4).
    #[must_use]
    pub fn notification_page(
        &self,
        notify_off: u16,
        mut others: impl Iterator<Item = u16>,
        msix: Option<&Msix>,
    ) -> Option<NotificationArea> {
        let layout = &self.layout;
        let offset = self.notify_offset(notify_off);
        let base = self.notify_base.0.checked_add(offset)?;
        if !base.is_multiple_of(PAGE) || offset + PAGE > layout.notify.length {
            return None;
        }
        if others.any(|other| (offset..offset + PAGE).contains(&self.notify_offset(other))) {
            return None;
        }
        let start = layout.notify.offset + offset;
        let bytes = start..start + PAGE;
        let bar = layout.notify.bar;
        let is_shared = layout.others_touch(bar, &bytes);
        let holds_interrupts = msix.is_some_and(|msix| msix.touches(bar, &bytes));
        (!is_shared && !holds_interrupts).then_some(NotificationArea {
            base: PhysAddr(base),
            len: PAGE,
        })
    }
}
