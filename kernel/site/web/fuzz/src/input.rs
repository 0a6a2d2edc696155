//! Changes of an image out of an input.

/// Numbers out of an input. Behind its end there are zeroes.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    pub fn below(&mut self, end: usize) -> usize {
        let bytes = self.bytes(4);
        let number = bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | usize::from(*byte));
        number % end
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// Writes the bytes at the place, as far as the image goes, and returns what was there.
pub fn patch(image: &mut [u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let end = at.saturating_add(bytes.len()).min(image.len());
    let place = image.get_mut(at..end).unwrap_or_default();
    let old = place.to_vec();
    place.copy_from_slice(&bytes[..old.len()]);
    old
}
