//! Keeps a machine on one processor of the host.
//!
//! With a clock that counts instructions, QEMU translates for a machine that never runs beside
//! anything, and leaves memory barriers out; but its devices do run in another thread. Guest and
//! device then miss each other's notices now and then, and both wait for ever. Threads that share a
//! processor see each other's stores in the order of the program.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// While it lives, its thread has one processor, and so has every process that the thread starts,
/// for as long as that runs.
#[derive(Debug)]
pub(super) struct OneProcessor(CpuSet);

impl OneProcessor {
    /// Takes the first of the processors that this thread may use.
    pub(super) fn take() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        if let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)) {
            one.set(first);
        }
        sched_setaffinity(None, &one)?;
        Ok(Self(allowed))
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        // It was allowed before.
        let _ = sched_setaffinity(None, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// How many processors a process has that is started now.
    fn processors() -> u32 {
        let nproc = Command::new("nproc").output().unwrap();
        str::from_utf8(&nproc.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    #[test]
    fn what_is_started_meanwhile_has_one_processor() {
        let before = processors();
        let one = OneProcessor::take().unwrap();
        assert_eq!(processors(), 1);
        drop(one);
        assert_eq!(processors(), before);
    }
}
