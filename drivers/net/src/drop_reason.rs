//! Why a received frame is not handed on, as its counter says.

/// Why a frame was not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DropReason {
    TooShort,
    TooLong,
    Segmentation,
    ChecksumPlace,
    Checksum,
    NoBuffers,
}

impl DropReason {
    pub(super) const ALL: [Self; 6] = [
        Self::TooShort,
        Self::TooLong,
        Self::Segmentation,
        Self::ChecksumPlace,
        Self::Checksum,
        Self::NoBuffers,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "too short",
            Self::TooLong => "too long",
            Self::Segmentation => "segmentation not negotiated",
            Self::ChecksumPlace => "checksum outside the frame",
            Self::Checksum => "wrong checksum",
            Self::NoBuffers => "spans no buffer",
        }
    }
}
