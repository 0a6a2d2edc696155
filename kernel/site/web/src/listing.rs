//! The page of a directory, and the small pages that say what went wrong.

use alloc::string::String;
use core::fmt::{self, Display, Write};

use crate::date::ListingDate;
use crate::escape::{Html, Segment};
use crate::human::Bytes;
use crate::page::{document, written};
use crate::path::Target;
use crate::volume::{Entry, EntryKind, Listing};

/// The page of the directory that `target` leads to. `root` is where the volume's root is served,
/// without a slash at the end.
#[must_use]
pub fn directory(root: &str, target: &Target, listing: &Listing) -> String {
    let entries = &listing.entries;
    let title = target.names.last().map_or("Files", String::as_str);
    document(title, |page| {
        page.write_str("<header class=\"bar\"><h1>Files</h1><a class=\"button\" href=\"/\">Status</a></header>")?;
        breadcrumbs(page, root, target)?;
        page.write_str("<section class=\"card list\"><table><thead><tr><th>Name<th class=\"n\">Size<th class=\"n when\">Changed</thead><tbody>")?;
        if !target.names.is_empty() {
            page.write_str(
                "<tr><td><a class=\"dir\" href=\"../\">..</a><td class=\"n\"><td class=\"n when\">",
            )?;
        }
        for entry in entries {
            row(page, entry)?;
        }
        page.write_str("</tbody></table>")?;
        if entries.is_empty() {
            page.write_str("<p class=\"dim\">This directory is empty.</p>")?;
        }
        page.write_str("</section>")?;
        footer(page, listing)
    })
}

/// A page for an answer that is not a file: its status, a headline and one sentence.
#[must_use]
pub fn message(status: u16, headline: &str, sentence: &dyn Display) -> String {
    let sentence = capitalized(&written(|text| write!(text, "{sentence}")));
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

fn breadcrumbs(page: &mut String, root: &str, target: &Target) -> fmt::Result {
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

fn footer(page: &mut String, listing: &Listing) -> fmt::Result {
    let (mut directories, mut files, mut bytes) = (0, 0, 0u64);
    for entry in &listing.entries {
        match entry.kind {
            EntryKind::Damaged => {}
            EntryKind::Directory => directories += 1,
            EntryKind::File(length) => {
                files += 1;
                bytes = bytes.saturating_add(length);
            }
        }
    }
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
    if listing.skipped > 0 {
        write!(page, "; damaged entries left out: {}", listing.skipped)?;
    }
    if let Some(error) = listing.cut {
        write!(page, "; what follows is missing: {error}")?;
    }
    page.write_str("</footer>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::VolumeError;
    use alloc::vec;
    use hadris_fs::DateTime;

    #[test]
    fn names_are_text_in_the_page_and_encoded_in_the_address() {
        let listing = Listing {
            entries: vec![Entry {
                name: "<i>a&b?.txt".into(),
                kind: EntryKind::File(1536),
                modified: DateTime::from_unix_seconds(0).ok(),
            }],
            ..Listing::default()
        };
        let page = directory("/files", &Target::parse("/x%22y/").unwrap(), &listing);
        assert!(page.contains("href=\"./%3Ci%3Ea%26b%3F.txt\">&lt;i&gt;a&amp;b?.txt</a>"));
        assert!(page.contains("1.50 KiB"));
        assert!(page.contains("1970-01-01 00:00"));
        assert!(page.contains("<a href=\"/files/x%22y/\">x&quot;y</a>"));
        assert!(page.contains("href=\"../\""));
        assert!(!page.contains("<i>"));
    }

    #[test]
    fn the_root_has_no_parent() {
        let page = directory("/files", &Target::default(), &Listing::default());
        assert!(!page.contains("href=\"../\""));
        assert!(page.contains("This directory is empty."));
    }

    #[test]
    fn what_is_damaged_is_told_and_has_no_link() {
        let listing = Listing {
            entries: vec![Entry {
                name: "lost.txt".into(),
                kind: EntryKind::Damaged,
                modified: None,
            }],
            skipped: 2,
            cut: Some(VolumeError::Damaged),
        };
        let page = directory("/files", &Target::default(), &listing);
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
