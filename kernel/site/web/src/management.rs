//! Management of vDPA devices over HTTP: which request means which command of `vdpa`, and who may
//! send it.
//!
//! | request | command |
//! |---|---|
//! | `GET /api/vdpa/mgmtdev[/HANDLE]` | `vdpa -j mgmtdev show [HANDLE]` |
//! | `GET /api/vdpa/dev[/NAME]` | `vdpa -j dev show [NAME]` |
//! | `GET /api/vdpa/dev/config`, `GET /api/vdpa/dev/NAME/config` | `vdpa -j dev config show [NAME]` |
//! | `GET /api/vdpa/dev/NAME/vstats/QIDX` | `vdpa -j dev vstats show NAME qidx QIDX` |
//! | `POST /api/vdpa/dev`, JSON with the words of `dev add` as keys | `vdpa -j dev add ...` |
//! | `POST /api/vdpa/dev/NAME`, JSON with the words of `dev set` as keys | `vdpa -j dev set name NAME ...` |
//! | `POST /api/vdpa/dev/NAME/move`, JSON with the words of `dev move` as keys | `vdpa -j dev move name NAME ...` |
//! | `DELETE /api/vdpa/dev/NAME` | `vdpa -j dev del NAME` |
//! | `POST /api/vdpa`, the words as plain text | `vdpa` with these words |
//!
//! What changes something is for those alone whom the kernel's command line lets do it, and never
//! for a page of another site that a browser shows: neither under that site's name nor under one
//! that leads here.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use vdpa_mgmt::tool::{Command, Form, Invocation, Options, ToolError, UsageError};

use crate::http::body::BODY_MAX;
use crate::path::percent_decode;

/// Where all of this is.
pub const ROOT: &str = "/api/vdpa";

/// Who may change something over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// Nobody.
    Nobody,
    /// Everybody who reaches the server: `admin=http` on the kernel's command line.
    Everybody,
}

/// What of a request matters here.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, encoded, below [`ROOT`]: empty, or from the slash on.
    pub path: &'a str,
    /// The header `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The host and port that the request is for.
    pub host: Option<&'a str>,
    /// The header `Origin`, by which a browser says whose page asks.
    pub origin: Option<&'a str>,
    /// The header `Sec-Fetch-Site`, by which a browser says the same.
    pub fetch_site: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// What the body is, without parameters.
    pub(crate) fn media_type(&self) -> &str {
        let media_type = self.content_type.unwrap_or_default();
        media_type.split(';').next().unwrap_or_default().trim()
    }
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// A sentence that says what to do.
    pub sentence: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, sentence: impl Into<String>) -> Self {
        Self {
            status,
            sentence: sentence.into(),
        }
    }

    /// The body of the request is longer than [`BODY_MAX`].
    #[must_use]
    pub fn too_long() -> Self {
        Self::new(413, format!("send at most {BODY_MAX} bytes"))
    }

    /// The answer's body.
    #[must_use]
    pub fn json(&self) -> String {
        // The same writer as for all other JSON: each kind of them is code of its own.
        let sentence = serde_json::to_string(&self.sentence);
        // `expect` could print every error of the crate.
        let sentence = sentence.unwrap_or_else(|_| unreachable!("a string takes any text"));
        format!("{{\"error\":{sentence}}}\n")
    }
}

impl From<ToolError> for Refusal {
    fn from(error: ToolError) -> Self {
        use vdpa_mgmt::{CreateError, MgmtError};
        let status = match &error {
            ToolError::Usage(_) => 400,
            ToolError::Refused(refused) => match refused.error {
                MgmtError::NoDevice | MgmtError::NoManager | MgmtError::NoQueue { .. } => 404,
                MgmtError::Exists
                | MgmtError::NotCreated
                | MgmtError::SameDevice
                | MgmtError::Move(_)
                | MgmtError::Again => 409,
                MgmtError::Create(CreateError::OutOfMemory { .. } | CreateError::TooMany) => 507,
                MgmtError::Register(_) | MgmtError::Device(_) => 500,
                _ => 400,
            },
        };
        Self::new(status, error.to_string())
    }
}

impl From<UsageError> for Refusal {
    fn from(error: UsageError) -> Self {
        ToolError::from(error).into()
    }
}

/// What the request asks for, if its sender may have it.
///
/// # Errors
/// [`Refusal`].
pub fn invocation(request: &Request<'_>, admin: Admin) -> Result<Invocation, Refusal> {
    let invocation = understand(request)?;
    if invocation.command.changes() {
        permit(request, admin)?;
    }
    Ok(invocation)
}

/// Whether the sender of the request may change something.
pub(crate) fn permit(request: &Request<'_>, admin: Admin) -> Result<(), Refusal> {
    if admin == Admin::Nobody {
        let sentence =
            "boot with admin=http on the kernel's command line to change something over HTTP";
        return Err(Refusal::new(403, sentence));
    }
    check_site(request)
}

fn understand(request: &Request<'_>) -> Result<Invocation, Refusal> {
    let segments = segments(request.path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match request.method {
        "GET" | "HEAD" => show(&segments),
        "POST" => change(&segments, request),
        "DELETE" => match segments[..] {
            ["dev", name] => Ok(json(Command::Delete(name.to_owned()))),
            _ => Err(nothing_there()),
        },
        _ => Err(Refusal::new(405, "ask with GET, POST or DELETE")),
    }
}

fn show(segments: &[&str]) -> Result<Invocation, Refusal> {
    let words: &[&str] = match *segments {
        ["mgmtdev"] => &["mgmtdev", "show"],
        ["mgmtdev", name] => &["mgmtdev", "show", name],
        ["mgmtdev", bus, name] => &["mgmtdev", "show", &format!("{bus}/{name}")],
        ["dev"] => &["dev", "show"],
        ["dev", "config"] => &["dev", "config", "show"],
        ["dev", name] => &["dev", "show", name],
        ["dev", name, "config"] => &["dev", "config", "show", name],
        ["dev", name, "vstats", queue] => &["dev", "vstats", "show", name, "qidx", queue],
        _ => return Err(nothing_there()),
    };
    Ok(json(Invocation::parse(words)?.command))
}

fn change(segments: &[&str], request: &Request<'_>) -> Result<Invocation, Refusal> {
    let media_type = request.media_type();
    let body = str::from_utf8(request.body).map_err(|_| Refusal::new(400, "send text in UTF-8"))?;
    match (segments, media_type) {
        ([], "text/plain") => {
            let words: Vec<_> = body.split_ascii_whitespace().collect();
            Ok(Invocation::parse(&words)?)
        }
        ([], _) => Err(Refusal::new(
            415,
            "send the words, such as dev show, with Content-Type: text/plain",
        )),
        (["dev"], "application/json") => Ok(json(Command::add_from_json(body)?)),
        (["dev", name], "application/json") => Ok(json(Command::set_from_json(name, body)?)),
        (["dev", name, "move"], "application/json") => {
            Ok(json(Command::move_from_json(name, body)?))
        }
        (["dev"] | ["dev", _] | ["dev", _, "move"], _) => Err(Refusal::new(
            415,
            "send JSON with Content-Type: application/json",
        )),
        _ => Err(nothing_there()),
    }
}

/// Lets no page of another site use the browser of somebody who reaches this server.
fn check_site(request: &Request<'_>) -> Result<(), Refusal> {
    let foreign = || Refusal::new(403, "only a page of this server may change something here");
    if !matches!(request.fetch_site, None | Some("same-origin" | "none")) {
        return Err(foreign());
    }
    let host = request.host.unwrap_or_default();
    if let Some(origin) = request.origin
        && origin.strip_prefix("http://") != Some(host)
    {
        return Err(foreign());
    }
    // A name may be one of another site that leads here; an address is this server's.
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    if name == "localhost" || name.parse::<IpAddr>().is_ok() {
        Ok(())
    } else {
        Err(Refusal::new(
            403,
            "ask under the address of this server, not under a name",
        ))
    }
}

fn json(command: Command) -> Invocation {
    let options = Options {
        form: Form::Json,
        ..Options::default()
    };
    Invocation { options, command }
}

/// The parts of a path between slashes, decoded.
pub(crate) fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let Some(path) = path.strip_prefix('/') else {
        return Ok(Vec::new());
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    let decoded = path.split('/').map(percent_decode);
    let decoded: Result<Vec<_>, _> = decoded.collect();
    decoded.map_err(|_| Refusal::new(400, "the path is not encoded as a URL's is"))
}

fn nothing_there() -> Refusal {
    Refusal::new(
        404,
        "ask for mgmtdev, dev, dev/config, dev/NAME, dev/NAME/config, dev/NAME/move or dev/NAME/vstats/QIDX below /api/vdpa",
    )
}

#[cfg(test)]
#[path = "management_tests.rs"]
mod tests;
