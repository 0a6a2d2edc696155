//! Why management could not do what was asked.

use core::fmt;

use vdpa::Features;
use vdpa::bus::AddError;
use vdpa::device::RegisterError;
use vdpa::moving::MoveError;
use vdpa::ops::OpError;

use super::attributes::AttributeSet;
use super::manager::CreateError;

/// Why management could not do what was asked. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MgmtError {
    /// No management device has the handle.
    #[error("there is no such management device")]
    NoManager,
    /// No device has the name.
    #[error("there is no such device")]
    NoDevice,
    /// The device has no queue of this index.
    #[error("the device has {queues} queues, counted from 0")]
    NoQueue {
        /// How many it has.
        queues: u16,
    },
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// The name is missing, too long, or not of printable characters without `/` and quotes.
    #[error("a device's name has 1 to 63 letters, digits and any of . _ : -")]
    BadName,
    /// The device came by itself; only devices that were added can be deleted.
    #[error("only a device that was added can be deleted")]
    NotCreated,
    /// A device without queues is of no use.
    #[error("a network device has at least one pair of queues")]
    NoQueuePairs,
    /// The MTU is below the smallest of IPv4.
    #[error("an MTU is at least 68")]
    MtuTooSmall,
    /// A device cannot have the address of a group, or none.
    #[error("a device's address is a unicast address")]
    NotUnicast,
    /// The features that the device may offer lack some that the attributes need.
    #[error("the attributes need the features {0} too")]
    MissingFeatures(Features),
    /// The features that the device shall offer are more than the management device has.
    #[error("the management device does not have the features {0}")]
    UnknownFeatures(Features),
    /// Attributes that the management device does not take.
    #[error("the management device does not take the attributes {:#x} ({})", .0.bits(), Words(*.0))]
    UnsupportedAttributes(AttributeSet),
    /// Attributes of another type of device than the management device makes.
    #[error("the management device makes no device with the attributes {:#x} ({})", .0.bits(), Words(*.0))]
    WrongClass(AttributeSet),
    /// Feature bits that mean something else for each type of device, and more than one type to
    /// choose from.
    #[error(
        "the features {0} mean something else for each type of device; say which by an attribute"
    )]
    Ambiguous(Features),
    /// More queues than the management device can make.
    #[error("the management device makes at most {0} queues")]
    TooManyQueues(u32),
    /// The type of the device has nothing of the kind, or nobody can change it.
    #[error("the device does not offer this")]
    Unsupported,
    /// Features have not been negotiated yet.
    #[error("the device is not in use yet; try again when a driver has set it up")]
    Again,
    /// The management device could not make the device.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The bus did not take the device.
    #[error(transparent)]
    Register(RegisterError),
    /// The device and the one that it shall be moved to are the same.
    #[error("a device cannot be moved to itself")]
    SameDevice,
    /// The device was not moved.
    #[error("not moved: {0}")]
    Move(MoveError),
    /// The device did not answer as it should.
    #[error(transparent)]
    Device(OpError),
}

/// Attributes as users write them.
struct Words(AttributeSet);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, _)) in self.0.iter_names().enumerate() {
            let blank = if index == 0 { "" } else { " " };
            write!(f, "{blank}{}", name.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

impl From<RegisterError> for MgmtError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Bus(AddError::NameTaken) => Self::Exists,
            RegisterError::Bus(AddError::BadName) => Self::BadName,
            other => Self::Register(other),
        }
    }
}

impl From<OpError> for MgmtError {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Unsupported => Self::Unsupported,
            // It has left since it was found.
            OpError::Gone => Self::NoDevice,
            other => Self::Device(other),
        }
    }
}
