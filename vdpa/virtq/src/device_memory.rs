//! Memory that a device may be led to: the other end of an address translation.

use core::fmt;
use core::ops::Deref;

use crate::{AccessError, SharedMemory};

/// A share of memory that may be mapped for a device.
///
/// A device writes wherever its rings say. So the memory must be *open*, with no exclusive buffer
/// inside as long as this value lives; or the one who maps it must know whose rings the device
/// works on.
pub struct DeviceMemory {
    memory: SharedMemory,
    access: Access,
}

/// Why a device may write to the memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// No allocator can claim it: the value counts as a user.
    Open,
    /// The device's rings are those of a driver's queues.
    Lent,
}

impl DeviceMemory {
    /// Memory for any device. No allocator can claim it until the value and its clones are gone.
    ///
    /// # Errors
    /// [`AccessError::Claimed`], if an allocator has.
    pub fn open(memory: &SharedMemory) -> Result<Self, AccessError> {
        memory.enter()?;
        Ok(Self {
            memory: memory.clone(),
            access: Access::Open,
        })
    }

    /// Memory of which an allocator hands out parts.
    ///
    /// ```compile_fail,E0133
    /// fn attack(memory: &virtq::SharedMemory) -> virtq::DeviceMemory {
    ///     virtq::DeviceMemory::lent(memory)
    /// }
    /// ```
    ///
    /// # Safety
    /// Each device that the value or a clone of it is mapped for touches a buffer in the memory
    /// only while a driver has lent it through a [`Queue`](crate::Queue) of the device, and a ring
    /// only until that queue's hold is released.
    #[must_use]
    pub unsafe fn lent(memory: &SharedMemory) -> Self {
        Self {
            memory: memory.clone(),
            access: Access::Lent,
        }
    }
}

impl Deref for DeviceMemory {
    type Target = SharedMemory;

    fn deref(&self) -> &SharedMemory {
        &self.memory
    }
}

impl Clone for DeviceMemory {
    fn clone(&self) -> Self {
        if self.access == Access::Open {
            // Cannot fail: this value counts already.
            let _ = self.memory.enter();
        }
        Self {
            memory: self.memory.clone(),
            access: self.access,
        }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if self.access == Access::Open {
            self.memory.leave();
        }
    }
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.memory.fmt(f)
    }
}
