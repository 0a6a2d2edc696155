//! What a driver did that the specifications forbid.

/// As many as anybody reads.
const MAX: usize = 64;

/// A list of sentences.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<String>);

impl Violations {
    pub(crate) fn note(&mut self, what: String) {
        if self.0.len() < MAX {
            self.0.push(what);
        }
    }

    pub(crate) fn list(&self) -> Vec<String> {
        self.0.clone()
    }
}
