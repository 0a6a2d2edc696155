//! The checksum that a driver leaves to the card (VIRTIO 1.2, 5.1.6.2), for a receiver that does
//! not take it unfinished.

use vdpa::checksum::Sum;

/// The bytes of a frame, without the header, whose checksum is to be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// Where the sum starts. It ends with the frame.
    pub(super) start: u16,
    /// Where it goes, from there.
    pub(super) offset: u16,
}

impl Unfinished {
    /// Where the checksum lies, if it lies in a frame of this length.
    pub(super) fn place(self, frame_len: usize) -> Option<usize> {
        let place = usize::from(self.start) + usize::from(self.offset);
        (place + 2 <= frame_len).then_some(place)
    }

    /// Sums up what the driver has prepared, with the sum of the pseudo-header in the checksum's
    /// place.
    pub(super) fn finish(self, frame: &mut [u8]) {
        let Some(place) = self.place(frame.len()) else {
            return;
        };
        // RFC 768: a checksum of zero would mean that there is none.
        let checksum = match !Sum::default()
            .add_bytes(&frame[usize::from(self.start)..])
            .fold()
        {
            0 => 0xffff,
            checksum => checksum,
        };
        frame[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_finished_part_is_all_ones() {
        // The example of RFC 1071, with an odd byte behind it.
        let mut frame = [
            0xaa, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7, 0, 0, 0x80,
        ];
        let unfinished = Unfinished {
            start: 1,
            offset: 8,
        };
        unfinished.finish(&mut frame);
        let sum: u32 = [0x0001, 0xf203, 0xf4f5, 0xf6f7, 0x8000].iter().sum();
        let sum = sum + u32::from(u16::from_be_bytes([frame[9], frame[10]]));
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn a_checksum_outside_the_frame_is_left_alone() {
        let unfinished = Unfinished {
            start: 60,
            offset: 3,
        };
        assert_eq!(
            (unfinished.place(65), unfinished.place(64)),
            (Some(63), None)
        );
        let mut frame = [7; 64];
        unfinished.finish(&mut frame);
        assert_eq!(frame, [7; 64]);
    }
}
