//! What the card is told while it runs: one word a line.

use std::os::fd::AsFd;

use rustix::io::{Errno, read};

/// The longest line that anybody means.
const LINE_MAX: usize = 256;

/// Lines out of a pipe or a terminal that has something to read.
#[derive(Debug)]
pub(super) struct Orders<F> {
    source: Option<F>,
    line: Vec<u8>,
}

impl<F: AsFd> Orders<F> {
    pub(super) fn from(source: F) -> Self {
        Self {
            source: Some(source),
            line: Vec::new(),
        }
    }

    /// What to wait for; `None` once it has ended.
    pub(super) fn source(&self) -> Option<&F> {
        self.source.as_ref()
    }

    /// The lines that have been ended by what can be read now. Once is read, and once only.
    pub(super) fn take(&mut self) -> Vec<String> {
        let Some(source) = &self.source else {
            return Vec::new();
        };
        let mut bytes = [0; LINE_MAX];
        let mut lines = Vec::new();
        match read(source, &mut bytes) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => self.source = None,
            Ok(len) => {
                for &byte in &bytes[..len] {
                    if byte == b'\n' {
                        let line = std::mem::take(&mut self.line);
                        lines.push(String::from_utf8_lossy(&line).trim().into());
                    } else if self.line.len() < LINE_MAX {
                        self.line.push(byte);
                    }
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe};

    use super::*;

    #[test]
    fn lines_come_whole_until_the_source_ends() {
        let (source, mut end) = pipe().unwrap();
        let mut orders = Orders::from(source);
        end.write_all(b"one\n tw").unwrap();
        assert_eq!(orders.take(), ["one"]);
        end.write_all(b"o \n\n").unwrap();
        assert_eq!(orders.take(), ["two", ""]);
        end.write_all(&[b'x'; 200]).unwrap();
        assert_eq!(orders.take(), [""; 0]);
        end.write_all(&[b'x'; 200]).unwrap();
        assert_eq!(orders.take(), [""; 0]);
        end.write_all(b"\n").unwrap();
        assert_eq!(orders.take(), ["x".repeat(LINE_MAX)]);
        drop(end);
        assert!(orders.source().is_some());
        assert_eq!(orders.take(), [""; 0]);
        assert!(orders.source().is_none());
    }
}
