//! Whatever the libraries make public has a user somewhere else in the tree.
//!
//! Read from the source as words, so it errs on the side of a user: a name that means something else elsewhere
//! counts as one. `pub(crate)` and narrower are the compiler's to check.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose sources cannot be read has failed"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The sources whose public items are looked at.
const LIBRARIES: [&str; 10] = [
    "vdpa/virtq/src",
    "vdpa/src",
    "vdpa/virtio/src",
    "vdpa/vhost/src",
    "vdpa/sim/src",
    "vdpa/mgmt/src",
    "drivers/pci/src",
    "drivers/virtio-pci/src",
    "drivers/net/src",
    "drivers/blk/src",
];

/// What comes between `pub` and a name.
const KEYWORDS: [&str; 9] = [
    "async", "const", "enum", "fn", "static", "struct", "trait", "type", "unsafe",
];

#[test]
fn every_public_item_has_a_user() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["boot", "kernel", "drivers", "vdpa", "qemu", "tests"] {
        collect(&root.join(folder), &mut files);
    }
    let sources: Vec<(PathBuf, Vec<String>)> = files
        .into_iter()
        .map(|path| {
            let words = words(&fs::read_to_string(&path).unwrap());
            (path, words)
        })
        .collect();
    let mut users = BTreeMap::<&str, BTreeSet<&Path>>::new();
    for (path, words) in &sources {
        for word in words {
            users.entry(word).or_default().insert(path);
        }
    }
    let libraries = LIBRARIES.map(|library| root.join(library));
    let mut looked_at = 0;
    let mut unused = Vec::new();
    for (path, words) in &sources {
        if !libraries.iter().any(|library| path.starts_with(library)) {
            continue;
        }
        for name in public(words) {
            looked_at += 1;
            if users[name].len() == 1 {
                let path = path.strip_prefix(&root).unwrap();
                unused.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(looked_at > 500, "only {looked_at} public items were found");
    assert!(unused.is_empty(), "nobody uses:\n{}", unused.join("\n"));
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

/// The names of the items that are public without restriction.
fn public(words: &[String]) -> impl Iterator<Item = &str> {
    let places = (0..words.len()).filter(|place| words[*place] == "pub");
    places.filter_map(|place| {
        let mut rest = words[place + 1..].iter();
        let first = rest.next()?;
        if !KEYWORDS.contains(&first.as_str()) {
            return None;
        }
        rest.find(|word| !KEYWORDS.contains(&word.as_str()))
            .map(String::as_str)
    })
}
