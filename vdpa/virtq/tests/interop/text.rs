//! What the tests let chains carry.

/// Bytes that differ from number to number.
pub fn text(serial: u64) -> impl Iterator<Item = u8> {
    (0u64..).map(move |place| {
        let mixed = (serial ^ place << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed.to_le_bytes()[7]
    })
}
