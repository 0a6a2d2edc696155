//! The page of a directory, and the small pages that say what went wrong.
//!
//! A directory may have more entries than memory, so its page is made in pieces, each when the last
//! one is on its way.

use alloc::string::String;
use alloc::vec;
use core::fmt::{self, Display, Write};

use hadris_storage::async_::BlockDevice;
use vdpa::tree::Bytes;

use crate::date::ListingDate;
use crate::escape::{Html, Segment};
use crate::page::{self, document, written};
use crate::path::Target;
use crate::volume::{Cursor, Directory, Entry, EntryKind, Listing, Volume, VolumeError};

/// A piece is complete when it has so many bytes. The last row may exceed it.
const PIECE_BYTES: usize = 4096;

/// How many entries are read at once.
const AT_ONCE: usize = 32;

/// The page of a directory, piece by piece.
#[derive(Debug)]
pub struct Page {
    /// Where the volume's root is served, without a slash at the end.
    root: &'static str,
    target: Target,
    entries: Entries,
    totals: Totals,
    stage: Stage,
}

/// Where the entries come from.
#[derive(Debug)]
enum Entries {
    Sorted {
        entries: vec::IntoIter<Entry>,
        skipped: u32,
        cut: Option<VolumeError>,
    },
    Volume {
        cursor: Cursor,
        /// Those that were read and not shown yet.
        read: vec::IntoIter<Entry>,
        cut: Option<VolumeError>,
    },
}

#[derive(Debug, Default)]
struct Totals {
    directories: u64,
    files: u64,
    bytes: u64,
    damaged: u64,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Head,
    Rows,
    End,
}

impl Page {
    /// The page of the directory that `target` leads to, with these entries.
    #[must_use]
    pub fn sorted(root: &'static str, target: Target, listing: Listing) -> Self {
        let Listing {
            entries,
            skipped,
            cut,
        } = listing;
        let entries = Entries::Sorted {
            entries: entries.into_iter(),
            skipped,
            cut,
        };
        Self::new(root, target, entries)
    }

    /// The page of the directory that `target` leads to, with the entries in the order of the disk.
    #[must_use]
    pub fn unsorted(root: &'static str, target: Target, directory: Directory) -> Self {
        let entries = Entries::Volume {
            cursor: Cursor::new(directory),
            read: vec::IntoIter::default(),
            cut: None,
        };
        Self::new(root, target, entries)
    }

    fn new(root: &'static str, target: Target, entries: Entries) -> Self {
        Self {
            root,
            target,
            entries,
            totals: Totals::default(),
            stage: Stage::Head,
        }
    }

    /// The next piece of the page; `None` behind the last. `volume` is the one that the directory
    /// is on.
    pub async fn next<D: BlockDevice>(&mut self, volume: &Volume<D>) -> Option<String> {
        let (piece, stage) = match self.stage {
            Stage::Head => (written(|page| self.head(page)), Stage::Rows),
            Stage::Rows => self.rows(volume).await,
            Stage::End => return None,
        };
        self.stage = stage;
        Some(piece)
    }

    async fn rows<D: BlockDevice>(&mut self, volume: &Volume<D>) -> (String, Stage) {
        let mut piece = String::new();
        while piece.len() < PIECE_BYTES {
            match self.entries.next(volume).await {
                Some(entry) => {
                    self.totals.count(&entry);
                    piece.push_str(&written(|page| row(page, &entry)));
                }
                None => {
                    piece.push_str(&written(|page| self.end(page)));
                    return (piece, Stage::End);
                }
            }
        }
        (piece, Stage::Rows)
    }

    fn head(&self, page: &mut String) -> fmt::Result {
        let title = self.target.names.last().map_or("Files", String::as_str);
        page::begin(page, title)?;
        page.write_str("<header class=\"bar\"><h1>Files</h1><a class=\"button\" href=\"/\">Status</a></header>")?;
        breadcrumbs(page, self.root, &self.target)?;
        page.write_str("<section class=\"card list\"><table><thead><tr><th>Name<th class=\"n\">Size<th class=\"n when\">Changed</thead><tbody>")?;
        if self.target.names.is_empty() {
            return Ok(());
        }
        page.write_str(
            "<tr><td><a class=\"dir\" href=\"../\">..</a><td class=\"n\"><td class=\"n when\">",
        )
    }

    fn end(&self, page: &mut String) -> fmt::Result {
        page.write_str("</tbody></table>")?;
        if self.totals.is_empty() {
            page.write_str("<p class=\"dim\">This directory is empty.</p>")?;
        }
        page.write_str("</section>")?;
        self.footer(page)?;
        page.write_str(page::END)
    }

    fn footer(&self, page: &mut String) -> fmt::Result {
        let Totals {
            directories,
            files,
            bytes,
            ..
        } = self.totals;
        write!(
            page,
            "<footer>{directories} {}, {files} {}, {}",
            if directories == 1 {
                "directory"
            } else {
                "directories"
            },
            if files == 1 { "file" } else { "files" },
            Bytes(bytes)
        )?;
        let (order, skipped, cut) = match &self.entries {
            Entries::Sorted { skipped, cut, .. } => ("", *skipped, *cut),
            Entries::Volume { cursor, cut, .. } => {
                ("; too many to be sorted", cursor.skipped(), *cut)
            }
        };
        page.write_str(order)?;
        if skipped > 0 {
            write!(page, "; damaged entries left out: {skipped}")?;
        }
        if let Some(error) = cut {
            write!(page, "; what follows is missing: {error}")?;
        }
        page.write_str("</footer>")
    }
}

impl Entries {
    async fn next<D: BlockDevice>(&mut self, volume: &Volume<D>) -> Option<Entry> {
        match self {
            Self::Sorted { entries, .. } => entries.next(),
            Self::Volume { cursor, read, cut } => {
                if read.len() == 0 && cut.is_none() {
                    let (entries, error) = volume.next_entries(cursor, AT_ONCE).await;
                    (*read, *cut) = (entries.into_iter(), error);
                }
                read.next()
            }
        }
    }
}

impl Totals {
    fn count(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::Damaged => self.damaged += 1,
            EntryKind::Directory => self.directories += 1,
            EntryKind::File(length) => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(length);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.directories + self.files + self.damaged == 0
    }
}

/// A page for an answer that is not a file: its status, a headline and one sentence, of which only
/// the beginning is shown if it repeats something long.
#[must_use]
pub fn message(status: u16, headline: &str, sentence: &dyn Display) -> String {
    const LONGEST: usize = 500;
    let mut sentence = capitalized(&written(|text| write!(text, "{sentence}")));
    if let Some((end, _)) = sentence.char_indices().nth(LONGEST) {
        sentence.truncate(end);
        sentence.push_str("..");
    }
    document(headline, |page| {
        write!(
            page,
            "<main class=\"message\"><p class=\"code\">{status}</p><h1>{}</h1><p>{}.</p>\
             <p><a class=\"button\" href=\"/files/\">Files</a> <a class=\"button\" href=\"/\">Status</a></p></main>",
            Html(headline),
            Html(&sentence)
        )
    })
}

/// Errors are written to be quoted; on a page they begin a sentence.
fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next();
    first
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(characters)
        .collect()
}

/// The names on the way to the directory, with links. If those would be long, the last name alone.
fn breadcrumbs(page: &mut String, root: &str, target: &Target) -> fmt::Result {
    const LONGEST: usize = 8192;
    let names = target.names.iter().map(String::len).sum::<usize>();
    if names.saturating_mul(target.names.len()) > LONGEST {
        let name = target.names.last().map_or("", String::as_str);
        let name = Html(name);
        return write!(
            page,
            "<nav class=\"crumbs\"><a href=\"{root}/\">{root}</a><span>/../</span>{name}</nav>"
        );
    }
    write!(page, "<nav class=\"crumbs\"><a href=\"{root}/\">{root}</a>")?;
    for (depth, name) in target.names.iter().enumerate() {
        page.write_str("<span>/</span>")?;
        let here = Target {
            names: target.names[..=depth].to_vec(),
            trailing_slash: true,
        };
        write!(page, "<a href=\"{root}{here}\">{}</a>", Html(name))?;
    }
    page.write_str("</nav>")
}

fn row(page: &mut String, entry: &Entry) -> fmt::Result {
    // The leading `./` keeps a name with a colon from being taken for a scheme.
    let (class, slash) = match entry.kind {
        EntryKind::Directory => ("dir", "/"),
        EntryKind::File(_) => ("file", ""),
        EntryKind::Damaged => {
            let name = Html(&entry.name);
            return write!(
                page,
                "<tr><td class=\"dim\">{name}<td class=\"n dim\">damaged<td>"
            );
        }
    };
    write!(
        page,
        "<tr><td><a class=\"{class}\" href=\"./{}{slash}\">{}{slash}</a><td class=\"n\">",
        Segment(&entry.name),
        Html(&entry.name)
    )?;
    if let EntryKind::File(length) = entry.kind {
        write!(page, "{}", Bytes(length))?;
    }
    page.write_str("<td class=\"n when\">")?;
    entry
        .modified
        .map_or(Ok(()), |time| write!(page, "{}", ListingDate(time)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use hadris_fs::DateTime;

    fn directory(target: Target, listing: Listing) -> String {
        let mut page = Page::sorted("/files", target, listing);
        let mut text = written(|text| page.head(text));
        if let Entries::Sorted { entries, .. } = &mut page.entries {
            for entry in entries {
                page.totals.count(&entry);
                text.push_str(&written(|text| row(text, &entry)));
            }
        }
        text + &written(|text| page.end(text))
    }

    #[test]
    fn what_clients_and_disks_say_makes_no_page_long() {
        let path = format!("/{}", "%C3%BC/".repeat(1000));
        let page = Page::sorted("/files", Target::parse(&path).unwrap(), Listing::default());
        let head = written(|text| page.head(text));
        let usual = Page::sorted("/files", Target::default(), Listing::default());
        let usual = written(|text| usual.head(text));
        assert!(head.len() < usual.len() + 500, "{}", head.len());
        let short = message(404, "Not found", &"x").len();
        let long = message(404, "Not found", &"&".repeat(8000)).len();
        assert!(long < short + 5 * 510, "{long}");
    }

    #[test]
    fn names_are_text_in_the_page_and_encoded_in_the_address() {
        let listing = Listing {
            entries: Vec::from([Entry {
                name: "<i>a&b?.txt".into(),
                kind: EntryKind::File(1536),
                modified: DateTime::from_unix_seconds(0).ok(),
            }]),
            ..Listing::default()
        };
        let page = directory(Target::parse("/x%22y/").unwrap(), listing);
        assert!(page.contains("href=\"./%3Ci%3Ea%26b%3F.txt\">&lt;i&gt;a&amp;b?.txt</a>"));
        assert!(page.contains("1.50 KiB"));
        assert!(page.contains("1970-01-01 00:00"));
        assert!(page.contains("<a href=\"/files/x%22y/\">x&quot;y</a>"));
        assert!(page.contains("href=\"../\""));
        assert!(!page.contains("<i>"));
    }

    #[test]
    fn the_root_has_no_parent() {
        let page = directory(Target::default(), Listing::default());
        assert!(!page.contains("href=\"../\""));
        assert!(page.contains("This directory is empty."));
    }

    #[test]
    fn what_is_damaged_is_told_and_has_no_link() {
        let listing = Listing {
            entries: Vec::from([Entry {
                name: "lost.txt".into(),
                kind: EntryKind::Damaged,
                modified: None,
            }]),
            skipped: 2,
            cut: Some(VolumeError::Damaged),
        };
        let page = directory(Target::default(), listing);
        assert!(page.contains("lost.txt") && !page.contains("lost.txt\""));
        assert!(page.contains("damaged entries left out: 2"));
        assert!(page.contains("what follows is missing: the file system is damaged"));
    }

    #[test]
    fn a_message_quotes_what_it_repeats() {
        let page = message(404, "Not found", &"nothing at <script>");
        assert!(page.contains("Nothing at &lt;script&gt;."));
    }
}
