//! Whole volumes to begin with.

use hadris_fat::sync::write;
use hadris_fat::{FatKind, FatOptions};
use hadris_fs::{Content, Node, Tree};

use crate::visitor::Files;

/// Every variant of FAT, each nearly as small as it can be.
pub const KINDS: [(FatKind, u64); 3] = [
    (FatKind::Fat12, 512 << 10),
    (FatKind::Fat16, 5 << 20),
    (FatKind::Fat32, 34 << 20),
];

/// What is on each of them.
pub fn files() -> Files {
    let sample = |length: usize| {
        (0..length)
            .map(|index| (index * 7 + index / 512) as u8)
            .collect()
    };
    Files::from(
        [
            ("/README.TXT", 1300),
            ("/index.html", 5),
            ("/A%20name%20that%20is%20longer.html", 5000),
            ("/Zoo/animals%20and%20plants.html", 20_000),
            ("/Zoo/empty", 0),
            ("/Zoo/Deeper/SEED.BIN", 513),
        ]
        .map(|(path, length)| (path.to_string(), sample(length))),
    )
}

/// A volume with [`files`].
pub fn volume(kind: FatKind, size: u64) -> Vec<u8> {
    let mut tree = Tree::new();
    for (path, bytes) in files() {
        let file = Node::file(Content::bytes(bytes));
        tree.insert(path[1..].replace("%20", " ").as_str(), file)
            .unwrap();
    }
    let options = FatOptions::new().with_kind(kind).with_size(size);
    let mut image = Vec::new();
    write(&mut image, &tree, &options).unwrap();
    image
}
