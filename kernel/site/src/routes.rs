//! Which request gets what.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;

use kernel::log::warn;
use virtio_blk::BlkError;
use web::condition::{Conditions, Verdict, Version};
use web::content_type;
use web::http::head::Head;
use web::http::refusal::Refusal;
use web::http::target;
use web::listing;
use web::page;
use web::path::{PathError, Target, normalized};
use web::range::Selection;
use web::volume::{Directory, File, Found, VolumeError};

use crate::answer::{Answer, HTML, Payload};
use crate::download::{Download, ReadError};
use crate::files::Files;
use crate::site::Site;
use crate::{inventory, management};

/// Where the root of the volume is served.
const FILES: &str = "/files";
/// The file that stands for its directory.
const INDEX: &str = "index.html";
/// The query that asks for the listing of a directory even if it has an index.
const LIST: &str = "list";

/// What can be done with a page or a file.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// The answer to a request, whatever its method. `body` is `None`, if it is too long.
pub(crate) async fn answer(site: &Site, request: &Head<'_>, body: Option<&[u8]>) -> Answer {
    site.counters.requests.update(|requests| requests + 1);
    let (path, query) = match request.target {
        target::Target::Resource { path, query, .. } => (path, query),
        target::Target::Server { .. } => return Answer::options(METHODS),
        target::Target::Tunnel => return not_allowed(),
    };
    let path = &*normalized(path);
    if let Some(place) = management::Place::of(path) {
        if matches!(request.method, "GET" | "HEAD") && !site.has_room_for_devices() {
            return Answer::busy();
        }
        return management::answer(site, request, place, body).await;
    }
    match request.method {
        "HEAD" if body.is_none() => Answer::refused(Refusal::BodyTooLong).without_body(),
        _ if body.is_none() => Answer::refused(Refusal::BodyTooLong),
        "GET" => get(site, request, path, query).await,
        "HEAD" => get(site, request, path, query).await.without_body(),
        "OPTIONS" => Answer::options(METHODS),
        _ => not_allowed(),
    }
}

async fn get(site: &Site, request: &Head<'_>, path: &str, query: &str) -> Answer {
    match path {
        "/" | "/api/status" if !site.has_room_for_devices() => Answer::busy(),
        "/" => Answer::html(200, page::front(&inventory::status(site).await)).uncached(),
        "/api/status" => status_json(site).await,
        FILES => Answer::redirect(&format!("{FILES}/")),
        _ => match path
            .strip_prefix(FILES)
            .filter(|rest| rest.starts_with('/'))
        {
            Some(path) => file(site, path, query, &conditions(request)).await,
            None => Answer::message(404, "Not found", &format!("There is nothing at {path}")),
        },
    }
}

async fn status_json(site: &Site) -> Answer {
    match serde_json::to_string(&inventory::status(site).await) {
        Ok(json) => Answer::text(200, "application/json", json).uncached(),
        Err(error) => Answer::message(500, "Internal error", &error),
    }
}

async fn file(site: &Site, path: &str, query: &str, conditions: &Conditions<'_>) -> Answer {
    let files = match site.files().await {
        Ok(files) => files,
        Err(reason) => return Answer::message(503, "No files", &reason),
    };
    let target = match Target::parse(path) {
        Ok(target) => target,
        Err(error @ PathError::Encoding) => return Answer::message(400, "Bad request", &error),
        Err(PathError::Impossible) => return missing(path),
    };
    let found = match files.volume.find(&target.names).await {
        Ok(found) => found,
        Err(VolumeError::NotFound) => return missing(path),
        Err(error) => return failed(path, &error.into()),
    };
    match found {
        Found::Directory(_) if !target.trailing_slash && !target.names.is_empty() => {
            let query = if query.is_empty() {
                String::new()
            } else {
                format!("?{query}")
            };
            Answer::redirect(&format!("{FILES}{target}/{query}"))
        }
        Found::Directory(directory) => {
            list(site, &files, target, directory, query, conditions).await
        }
        Found::File(_) if target.trailing_slash => missing(path),
        Found::File(file) => {
            let name = target.names.last().map_or("", String::as_str);
            send(site, &files, name, file, conditions).await
        }
    }
}

async fn list(
    site: &Site,
    files: &Rc<Files>,
    target: Target,
    directory: Directory,
    query: &str,
    conditions: &Conditions<'_>,
) -> Answer {
    if query != LIST {
        match files.volume.find_entry(directory, INDEX).await {
            Ok(Found::File(file)) => return send(site, files, INDEX, file, conditions).await,
            Ok(Found::Directory(_)) | Err(VolumeError::NotFound) => {}
            Err(error) => return failed(INDEX, &error.into()),
        }
    }
    let page = match files.volume.list(directory, site.shares.listing).await {
        Ok(Some(listing)) => listing::Page::sorted(FILES, target, listing),
        Ok(None) => listing::Page::unsorted(FILES, target, directory),
        Err(error) => return failed("the directory", &error.into()),
    };
    let payload = Payload::Listing(Box::new(page), Rc::clone(files));
    Answer::new(200, HTML, payload).uncached()
}

/// A file, or the part of it that was asked for (RFC 9110, 13 and 14).
async fn send(
    site: &Site,
    files: &Rc<Files>,
    name: &str,
    file: File,
    conditions: &Conditions<'_>,
) -> Answer {
    let length = file.length;
    let version = Version::new(length, file.modified);
    let (status, range) = match conditions.apply(&version, length) {
        Verdict::Failed => {
            let sentence = "The file is not the version that is meant";
            return Answer::message(412, "Precondition failed", &sentence);
        }
        Verdict::NotModified => return versioned(Answer::not_modified(), &version),
        Verdict::Send(Selection::Whole) => (200, 0..length),
        Verdict::Send(Selection::Part(range)) => (206, range),
        Verdict::Send(Selection::Unsatisfiable) => {
            let sentence = format!("The file has {length} bytes");
            return Answer::message(416, "Range not satisfiable", &sentence)
                .with_header("Content-Range", &format!("bytes */{length}"));
        }
    };
    let part = format!(
        "bytes {}-{}/{length}",
        range.start,
        range.end.saturating_sub(1)
    );
    let download = match Download::start(Rc::clone(files), file, range, site.shares.piece).await {
        Ok(download) => download,
        Err(error) => return failed(name, &error),
    };
    let answer = Answer::new(status, content_type::of(name), Payload::Download(download));
    let answer = versioned(answer, &version).with_header("Accept-Ranges", "bytes");
    if status == 206 {
        answer.with_header("Content-Range", &part)
    } else {
        answer
    }
}

/// Tells the client which version it gets, and to ask again whether it is still the one.
fn versioned(answer: Answer, version: &Version) -> Answer {
    let answer = answer
        .with_header("ETag", &version.tag)
        .with_header("Cache-Control", "no-cache");
    match &version.last_modified {
        Some(date) => answer.with_header("Last-Modified", date),
        None => answer,
    }
}

fn missing(path: &str) -> Answer {
    Answer::message(
        404,
        "Not found",
        &format!("There is no file at {FILES}{path}"),
    )
}

/// What is damaged is told to the client alone, which can ask for it as often as it likes.
fn failed(what: &str, error: &ReadError) -> Answer {
    match error {
        ReadError::Disk(BlkError::OutOfMemory) => Answer::busy(),
        ReadError::Disk(_) | ReadError::Volume(VolumeError::Disk) => {
            warn!("site: {what}: {error}");
            Answer::message(503, "The disk does not answer", error)
        }
        ReadError::Volume(_) => Answer::message(500, "The file cannot be read", error),
    }
}

fn not_allowed() -> Answer {
    Answer::message(405, "Method not allowed", &"Only GET and HEAD work here")
        .with_header("Allow", METHODS)
}

fn conditions<'a>(request: &Head<'a>) -> Conditions<'a> {
    Conditions {
        if_match: request.combined_value("If-Match"),
        if_unmodified_since: request.only_value("If-Unmodified-Since"),
        if_none_match: request.combined_value("If-None-Match"),
        if_modified_since: request.only_value("If-Modified-Since"),
        if_range: request.value("If-Range"),
        // It means something for GET alone (RFC 9110, 14.2).
        range: request
            .only_value("Range")
            .filter(|_| request.method == "GET"),
    }
}
