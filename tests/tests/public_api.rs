//! Whatever the libraries make public has a user: the kernel, a driver, the launcher, or an
//! example.
//!
//! Tests, benchmarks, fuzz targets and the kits for them are none, and neither is a line that only
//! passes a name on. Read from the source as words, so it errs on the side of a user: a name that
//! means something else elsewhere counts as one. `pub(crate)` and narrower are the compiler's to
//! check.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose sources cannot be read has failed"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The sources whose public items are looked at.
const LIBRARIES: [&str; 22] = [
    "boot/src",
    "vdpa/virtq/src",
    "vdpa/src",
    "vdpa/virtio/src",
    "vdpa/vhost/src",
    "vdpa/sim/src",
    "vdpa/vduse/src",
    "vdpa/vduse-linux/src",
    "vdpa/vduse-nbd/src",
    "vdpa/vduse-protocol/src",
    "vdpa/mgmt/src",
    "drivers/iommu/src",
    "drivers/virtio-iommu/src",
    "drivers/pci/src",
    "drivers/virtio-mmio/src",
    "drivers/virtio-pci/src",
    "drivers/net/src",
    "drivers/blk/src",
    "drivers/nbd/src",
    "kernel/src",
    "kernel/site/web/src",
    "qemu/src",
];

/// Folders and files of those who do not count: tests, and what only tests use.
const FOR_TESTS: [&str; 10] = [
    "tests",
    "benches",
    "fuzz",
    "testing",
    "conformance",
    "faults",
    "tests.rs",
    "testing.rs",
    "conformance.rs",
    "faults.rs",
];

/// What applications, other kernels and makers of devices are offered beyond what the programs of
/// this tree use.
const OFFERED: [(&str, &[&str]); 10] = [
    // A disk for an application that has its bytes elsewhere, or polls.
    (
        "drivers/blk/src",
        &["read_into", "write_from", "with_completion"],
    ),
    // What a card takes in.
    ("drivers/net/src", &["set_promiscuous", "set_all_multicast"]),
    // A segment without memory-mapped configuration space.
    ("drivers/pci/src", &["ConfigPorts"]),
    // The outcome of an application.
    ("kernel/src", &["SUCCESS"]),
    // For tests and tools that start guests.
    (
        "qemu/src",
        &[
            "from_mib",
            "kernels",
            "wait_for",
            "type_line",
            "hardware_kvm",
            "findings",
        ],
    ),
    // The device side of a queue for hypervisors, with what a migration needs.
    (
        "vdpa/virtq/src",
        &[
            "Direct",
            "is_same",
            "of_queue",
            "readable_pieces",
            "set_bits",
            "take_abandoned",
            "with_log",
            "writable_pieces",
        ],
    ),
    // A bus of one's own, an IOMMU's driver, and devices that are moved by others.
    (
        "vdpa/src",
        &[
            "covering",
            "is_suspended",
            "merge",
            "report_fault",
            "rescan",
            "take_dirty_pages",
        ],
    ),
    // A task whose device changes, and ends.
    (
        "vdpa/vduse/src",
        &[
            "destroy",
            "update_config",
            "inject_config_interrupt",
            "inject_interrupt",
        ],
    ),
    // What a daemon of a Linux host tells its kernel, besides the messages.
    (
        "vdpa/vduse-protocol/src",
        &[
            "GET_API_VERSION",
            "SET_API_VERSION",
            "CREATE_DEV",
            "DESTROY_DEV",
            "GET_FEATURES",
            "SET_FEATURES",
            "IOTLB_GET_FD",
            "DEV_GET_FEATURES",
            "DEV_SET_CONFIG",
            "DEV_INJECT_CONFIG_IRQ",
            "VQ_SETUP",
            "VQ_GET_INFO",
            "VQ_SETUP_KICKFD",
            "VQ_INJECT_IRQ",
            "IOTLB_REG_UMEM",
            "IOTLB_DEREG_UMEM",
            "IOTLB_GET_INFO",
            "IOTLB_GET_FD2",
            "IOTLB_GET_FD2_LONG",
            "KickFd",
            "ConfigUpdate",
            "IotlbEntry",
            "SIZE_V2",
            "SIZE_V2_LONG",
            "UserMemory",
            "IovaInfo",
        ],
    ),
    // A client that gives a device back while it works.
    ("vdpa/vhost/src", &["hand_back"]),
];

/// What comes between `pub` and a name.
const KEYWORDS: [&str; 9] = [
    "async", "const", "enum", "fn", "static", "struct", "trait", "type", "unsafe",
];

/// A source: where it is, and its words without comments, tests and re-exports.
struct Source {
    path: PathBuf,
    words: Vec<String>,
    /// It is no user, and its items are for tests.
    for_tests: bool,
}

#[test]
fn every_public_item_has_a_user() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources(&root);
    let mut users = BTreeMap::<&str, BTreeSet<&Path>>::new();
    let mut tests = users.clone();
    for source in &sources {
        for word in &source.words {
            tests.entry(word).or_default().insert(&source.path);
            if !source.for_tests {
                users.entry(word).or_default().insert(&source.path);
            }
        }
    }
    let mut offered: BTreeSet<(&str, &str)> = OFFERED
        .iter()
        .flat_map(|(library, names)| names.iter().map(|name| (*library, *name)))
        .collect();
    let mut looked_at = 0;
    let mut unused = Vec::new();
    for Source {
        path,
        words,
        for_tests,
    } in &sources
    {
        let mut libraries = LIBRARIES.iter();
        let Some(library) = libraries.find(|library| path.starts_with(library)) else {
            continue;
        };
        let users = if *for_tests { &tests } else { &users };
        for (kind, name) in public(words) {
            looked_at += 1;
            let is_used = users[name].len() > 1 || is_type(kind) && is_spoken_of(words, name);
            if !is_used && !offered.remove(&(library, name)) {
                unused.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(looked_at > 1000, "only {looked_at} public items were found");
    assert!(unused.is_empty(), "nobody uses:\n{}", unused.join("\n"));
    if !offered.is_empty() {
        println!("gone, or in use by now: {offered:?}");
    }
}

/// All sources of the tree.
fn sources(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["boot", "kernel", "drivers", "vdpa", "qemu", "tests"] {
        collect(&root.join(folder), &mut files);
    }
    let source = |path: PathBuf| {
        let words = without_tests(words(&fs::read_to_string(&path).unwrap()));
        let path = path.strip_prefix(root).unwrap().to_path_buf();
        let for_tests = is_for_tests(&path);
        Source {
            path,
            words,
            for_tests,
        }
    };
    files.into_iter().map(source).collect()
}

/// The Rust sources below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn is_for_tests(path: &Path) -> bool {
    path.components().any(|part| match part {
        Component::Normal(part) => {
            let part = part.to_string_lossy();
            FOR_TESTS.contains(&part.as_ref()) || part.ends_with("_tests.rs")
        }
        _ => false,
    })
}

/// The words and marks of a source, without comments.
fn words(source: &str) -> Vec<String> {
    let mut words = Vec::new();
    for line in source.lines() {
        let code = line.split("//").next().unwrap_or_default();
        let mut word = String::new();
        for character in code.chars() {
            if character.is_alphanumeric() || character == '_' {
                word.push(character);
                continue;
            }
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            if !character.is_whitespace() {
                words.push(character.into());
            }
        }
        words.extend((!word.is_empty()).then_some(word));
    }
    words
}

/// Leaves out re-exports, and items that are there for tests alone.
fn without_tests(mut words: Vec<String>) -> Vec<String> {
    let (mut kept, mut at) = (0, 0);
    while at < words.len() {
        at += match words[at].as_str() {
            "#" if is_for_test(&words[at..]) => item_len(&words[at..]),
            "pub" if begins(&words[at..], &["pub", "use"]) => item_len(&words[at..]),
            _ => {
                words.swap(kept, at);
                kept += 1;
                1
            }
        };
    }
    words.truncate(kept);
    words
}

/// Whether an item begins here that only tests have.
fn is_for_test(words: &[String]) -> bool {
    let begins_with = |start: &str| {
        let mut rest = words.iter();
        let mut left = start;
        while !left.is_empty() {
            let Some(after) = rest
                .next()
                .and_then(|word| left.strip_prefix(word.as_str()))
            else {
                return false;
            };
            left = after;
        }
        true
    };
    [
        "#[cfg(test)]",
        "#[cfg(feature=\"testing\")]",
        "#[cfg(feature=\"faults\")]",
    ]
    .iter()
    .any(|start| begins_with(start))
}

fn begins(words: &[String], with: &[&str]) -> bool {
    words.len() >= with.len() && words.iter().zip(with).all(|(word, other)| word == other)
}

/// How many words an item has with its attributes, to its last bracket or its semicolon.
fn item_len(words: &[String]) -> usize {
    let mut depth = 0;
    for (at, word) in words.iter().enumerate() {
        match word.as_str() {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            // The item was the last of another one.
            "}" if depth == 0 => return at,
            "}" => {
                depth -= 1;
                // Braces in the middle belong to a list of names.
                if depth == 0 && words.get(at + 1).is_none_or(|next| next != ";") {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    words.len()
}

/// The items that are public without restriction: what each is, and its name.
fn public(words: &[String]) -> impl Iterator<Item = (&str, &str)> {
    let places = (0..words.len()).filter(|place| words[*place] == "pub");
    places.filter_map(|place| {
        let rest = &words[place + 1..];
        let name = rest
            .iter()
            .position(|word| !KEYWORDS.contains(&word.as_str()))?;
        let kind = &rest[name.checked_sub(1)?];
        Some((kind.as_str(), rest[name].as_str()))
    })
}

fn is_type(kind: &str) -> bool {
    ["enum", "struct", "trait", "type"].contains(&kind)
}

/// Whether a function, an associated type or a public field has it: code that uses those need not
/// name it.
fn is_spoken_of(words: &[String], name: &str) -> bool {
    let has = |at: usize, ends: [&str; 2]| {
        let rest = words[at + 2..].iter();
        rest.take_while(|word| !ends.contains(&word.as_str()))
            .any(|word| word == name)
    };
    (0..words.len().saturating_sub(2)).any(|at| match words[at].as_str() {
        "fn" | "type" if words[at + 1] != name => has(at, ["{", ";"]),
        "pub" if words[at + 2] == ":" => has(at, [",", "}"]),
        _ => false,
    })
}

#[test]
fn tests_and_names_passed_on_are_no_users() {
    let source = "pub use a::{B, C};\nfn d() { E }\n#[cfg(test)]\nmod tests { fn f() { G } }\n\
         #[cfg(feature = \"testing\")] pub fn i(&self) -> [u8; 2] { J }\nfn h() {}";
    let kept = without_tests(words(source)).concat();
    assert_eq!(kept, "fnd(){E}fnh(){}");
    for path in ["vdpa/tests/a.rs", "vdpa/src/testing.rs", "a/b_tests.rs"] {
        assert!(is_for_tests(Path::new(path)), "{path}");
    }
    assert!(!is_for_tests(Path::new("vdpa/src/test.rs")));
    let source =
        words("pub struct A; pub fn b() -> A { } pub async fn c() {} pub(crate) fn d() {}");
    let found: Vec<_> = public(&source).collect();
    assert_eq!(found, [("struct", "A"), ("fn", "b"), ("fn", "c")]);
    assert!(is_spoken_of(&source, "A") && !is_spoken_of(&source, "b"));
    let source = words("pub struct A; pub struct B { pub a: Option<A>, b: C }");
    assert!(is_spoken_of(&source, "A") && !is_spoken_of(&source, "C"));
}
