//! The list of tests, which the linker puts together from the modules.

use std::fs;
use std::io;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;

/// Every test that is a function without arguments.
#[distributed_slice]
pub static TESTS: [Test];

/// A test and its name.
pub struct Test {
    /// The path of its function with the program's name in front.
    pub path: &'static str,
    /// Its function, which panics if it fails.
    pub run: fn(),
}

/// Registers functions as tests. One that is not named here is reported by the compiler as unused.
macro_rules! system_tests {
    ($($name:ident),+ $(,)?) => { $(
        const _: () = {
            #[linkme::distributed_slice($crate::registry::TESTS)]
            static TEST: $crate::registry::Test = $crate::registry::Test {
                path: concat!(module_path!(), "::", stringify!($name)),
                run: $name,
            };
        };
    )+ };
}

/// All of them, by name.
pub fn trials() -> Vec<Trial> {
    let named = TESTS.iter().map(|test| {
        let name = test
            .path
            .split_once("::")
            .map_or(test.path, |(_, name)| name);
        (name, test.run)
    });
    let mut named: Vec<(&str, fn())> = named.collect();
    named.sort_unstable_by_key(|(name, _)| *name);
    let trials = named.into_iter().map(|(name, run)| {
        let run = move || {
            run();
            Ok(())
        };
        Trial::test(name, run)
    });
    let complete = Trial::test("registry::every_test_is_registered", || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system");
        every_test_is_registered(&folder)
    });
    trials.chain([complete]).collect()
}

/// The compiler drops what is marked as a test of the standard library's harness, which this
/// program does not have.
fn every_test_is_registered(folder: &Path) -> Result<(), Failed> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            every_test_is_registered(&entry.path())?;
            continue;
        }
        let source: io::Result<String> = fs::read_to_string(entry.path());
        if source?.lines().any(|line| line.trim() == "#[test]") {
            let path = entry.path();
            return Err(format!("{}: use system_tests! for #[test]", path.display()).into());
        }
    }
    Ok(())
}
