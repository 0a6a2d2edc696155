//! The list of tests, which the linker puts together from the modules.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::pin::Pin;

use linkme::distributed_slice;

use crate::bench::Bench;
use crate::outcome::Outcome;

/// A test in progress.
pub type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// Every test of this kernel.
#[distributed_slice]
pub static TESTS: [Test];

/// A test and its name.
pub struct Test {
    /// The path of its function with the crate's name in front.
    pub path: &'static str,
    /// Its function.
    pub run: for<'a> fn(&'a Bench) -> Running<'a>,
}

impl Test {
    /// The name it is reported by: module and function.
    pub fn name(&self) -> &'static str {
        self.path
            .split_once("::")
            .map_or(self.path, |(_crate, name)| name)
    }

    /// Begins it.
    pub fn run<'a>(&self, bench: &'a Bench) -> Running<'a> {
        (self.run)(bench)
    }
}

/// All tests by name: the order in which they are run must not depend on the linker.
pub fn sorted() -> Vec<&'static Test> {
    let mut tests: Vec<&Test> = TESTS.iter().collect();
    tests.sort_unstable_by_key(|test| test.name());
    tests
}

/// Registers asynchronous functions from a [`Bench`] to an [`Outcome`] as tests.
#[macro_export]
macro_rules! guest_tests {
    ($($name:ident),+ $(,)?) => { $(
        const _: () = {
            #[linkme::distributed_slice($crate::registry::TESTS)]
            static TEST: $crate::registry::Test = $crate::registry::Test {
                path: concat!(module_path!(), "::", stringify!($name)),
                run: |bench| alloc::boxed::Box::pin($name(bench)),
            };
        };
    )+ };
}
