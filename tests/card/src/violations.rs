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

    /// What breaks a statement of VIRTIO 1.2, by the statement's section.
    pub(crate) fn against(&mut self, section: &str, what: impl std::fmt::Display) {
        self.note(format!("VIRTIO 1.2, {section}: {what}"));
    }

    pub(crate) fn list(&self) -> Vec<String> {
        self.0.clone()
    }
}
