//! Walks the directory that becomes an image, and finds out whether FAT32 can hold it before
//! anything is written.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::{ImageError, NameError};

/// The longest name in UTF-16 units, and how many of them a directory slot takes (section 7).
const NAME_UNITS: usize = 255;
const UNITS_PER_SLOT: usize = 13;

/// Slots in the largest directory, and the bytes of a slot (section 6).
const DIRECTORY_SLOTS: u64 = 65536;
const SLOT_BYTES: u64 = 32;

/// A file or directory to copy.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it is on this host.
    pub(super) source: PathBuf,
    /// The directory it goes into: an index of [`Scan::entries`], `None` for the root.
    pub(super) parent: Option<usize>,
    /// Its name in that directory.
    pub(super) name: String,
    /// What it is.
    pub(super) content: Content,
    /// Its metadata on this host.
    pub(super) metadata: Metadata,
}

/// What an [`Entry`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A directory.
    Directory,
    /// A file of so many bytes.
    File(u32),
}

/// All that goes into an image, directories before what is in them.
#[derive(Debug)]
pub(super) struct Scan {
    /// The directory that was walked.
    pub(super) root: PathBuf,
    /// What is below it.
    pub(super) entries: Vec<Entry>,
    /// Bytes of slots of each directory, the root among them.
    directories: Vec<u64>,
}

impl Scan {
    /// Walks `root`, following links.
    pub(super) fn of(root: &Path) -> Result<Self, ImageError> {
        let unreadable = |source| ImageError::Unreadable {
            path: root.into(),
            source,
        };
        if !root.metadata().map_err(unreadable)?.is_dir() {
            return Err(ImageError::NotADirectory(root.into()));
        }
        let mut entries: Vec<Entry> = Vec::new();
        // The volume's label has a slot in the root.
        let mut directories = HashMap::from([(root.to_path_buf(), Directory::new(None, 1))]);
        for found in WalkDir::new(root)
            .follow_links(true)
            .min_depth(1)
            .sort_by_file_name()
        {
            let found = found.map_err(|error| walk_error(root, error))?;
            let path = found.path();
            let metadata = found.metadata().map_err(|error| walk_error(root, error))?;
            let content = content(path, &metadata)?;
            let name = name(&found)?;
            let directory = path.parent().and_then(|parent| directories.get_mut(parent));
            let directory = directory.expect("a directory is walked before what is in it");
            directory.add(path, &name)?;
            let parent = directory.index;
            if content == Content::Directory {
                // The entries `.` and `..` have a slot each.
                directories.insert(path.into(), Directory::new(Some(entries.len()), 2));
            }
            entries.push(Entry {
                source: path.into(),
                parent,
                name,
                content,
                metadata,
            });
        }
        let directories = directories
            .into_values()
            .map(|directory| directory.slots * SLOT_BYTES);
        Ok(Self {
            root: root.into(),
            entries,
            directories: directories.collect(),
        })
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files().map(u64::from).sum()
    }

    /// Clusters of `cluster` bytes that hold all files and directories.
    pub(super) fn clusters(&self, cluster: u64) -> u64 {
        let files = self.files().map(u64::from);
        files
            .chain(self.directories.iter().copied())
            .map(|bytes| bytes.div_ceil(cluster))
            .sum()
    }

    fn files(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().filter_map(|entry| match entry.content {
            Content::File(bytes) => Some(bytes),
            Content::Directory => None,
        })
    }
}

/// A directory as it fills.
struct Directory {
    index: Option<usize>,
    slots: u64,
    /// Names as FAT compares them, and whose they are.
    names: HashMap<String, PathBuf>,
}

impl Directory {
    fn new(index: Option<usize>, slots: u64) -> Self {
        Self {
            index,
            slots,
            names: HashMap::new(),
        }
    }

    fn add(&mut self, path: &Path, name: &str) -> Result<(), ImageError> {
        if let Some(first) = self.names.insert(folded(name), path.into()) {
            return Err(ImageError::SameName(first, path.into()));
        }
        self.slots += slots(name);
        if self.slots > DIRECTORY_SLOTS {
            return Err(ImageError::DirectoryTooLarge(
                path.parent().unwrap_or(path).into(),
            ));
        }
        Ok(())
    }
}

/// What `path` is, if FAT32 has such a thing.
fn content(path: &Path, metadata: &Metadata) -> Result<Content, ImageError> {
    if metadata.is_dir() {
        return Ok(Content::Directory);
    }
    if !metadata.is_file() {
        return Err(ImageError::Special(path.into()));
    }
    let bytes = metadata.len();
    let small = u32::try_from(bytes).map_err(|_| ImageError::FileTooLarge(path.into(), bytes))?;
    Ok(Content::File(small))
}

/// The entry's name, if FAT can store it (section 7).
fn name(entry: &DirEntry) -> Result<String, ImageError> {
    let refuse = |error| ImageError::Name(entry.path().into(), error);
    let name = entry
        .file_name()
        .to_str()
        .ok_or_else(|| refuse(NameError::NotUnicode))?;
    if let Some(character) = name
        .chars()
        .find(|&c| c.is_control() || r#""*/:<>?\|"#.contains(c))
    {
        return Err(refuse(NameError::Character(character)));
    }
    if name.ends_with(['.', ' ']) {
        return Err(refuse(NameError::Ending));
    }
    if name.encode_utf16().count() > NAME_UNITS {
        return Err(refuse(NameError::TooLong));
    }
    Ok(name.into())
}

/// The name with every character that has one upper-case form in that form.
fn folded(name: &str) -> String {
    let upper = |character: char| {
        let mut forms = character.to_uppercase();
        match (forms.next(), forms.next()) {
            (Some(form), None) => form,
            _ => character,
        }
    };
    name.chars().map(upper).collect()
}

/// Directory slots a name takes: one for a short name, and those of the long name.
fn slots(name: &str) -> u64 {
    let long = if is_short(name) {
        0
    } else {
        name.encode_utf16().count().div_ceil(UNITS_PER_SLOT)
    };
    1 + long as u64
}

/// Whether the name needs no long form: up to eight and three plain characters in one case each.
fn is_short(name: &str) -> bool {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let plain = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let mixed = |part: &str| {
        part.bytes().any(|b| b.is_ascii_uppercase()) && part.bytes().any(|b| b.is_ascii_lowercase())
    };
    let part = |part: &str, longest| part.len() <= longest && plain(part) && !mixed(part);
    !base.is_empty() && part(base, 8) && part(extension, 3)
}

fn walk_error(root: &Path, error: walkdir::Error) -> ImageError {
    let path = error.path().unwrap_or(root).to_path_buf();
    if error.loop_ancestor().is_some() {
        return ImageError::Loop(path);
    }
    let source = error
        .into_io_error()
        .unwrap_or_else(|| io::ErrorKind::Other.into());
    ImageError::Unreadable { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_take_one_slot_and_long_ones_more() {
        for (name, expected) in [
            ("INDEX.TXT", 1),
            ("index.htm", 1),
            ("a", 1),
            ("index.html", 2),
            ("Readme", 2),
            ("a.b.c", 2),
            (".profile", 2),
            ("thirteen.char", 2),
            ("fourteen.chars", 3),
        ] {
            assert_eq!(slots(name), expected, "{name}");
        }
    }

    #[test]
    fn names_are_compared_without_case() {
        assert_eq!(folded("Grüße.TXT"), folded("grÜße.txt"));
        assert_ne!(folded("a"), folded("b"));
    }
}
