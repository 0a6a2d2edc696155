//! Numbers out of an input. Behind its end there are zeroes, so that no input is malformed.

#[derive(Debug)]
pub struct Input(Vec<u8>);

impl Input {
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().rev().copied().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.0.pop().unwrap_or_default()
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }
}
