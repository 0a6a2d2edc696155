//! PCI functions over HTTP: which request means which command of [`pci::tool`], and who may send
//! it.
//!
//! | request | command |
//! |---|---|
//! | `GET /api/pci` | `pci show` |
//! | `GET /api/pci/ADDRESS` | `pci show ADDRESS` |
//! | `POST /api/pci/ADDRESS`, JSON `{"sriov_numvfs": COUNT}` | `pci sriov ADDRESS numvfs COUNT` |
//!
//! Answers are arrays of functions. What changes something is for the same alone as in
//! [`management`](crate::management).

use alloc::string::{String, ToString};

use pci::SrIovError;
use pci::tool::{self, Command, ToolError};
use vdpa_mgmt::tool::words_of_json;

use crate::management::{Admin, Refusal, Request, permit, segments};

/// Where all of this is.
pub const ROOT: &str = "/api/pci";

/// What the request asks for, if its sender may have it.
///
/// # Errors
/// [`Refusal`].
pub fn command(request: &Request<'_>, admin: Admin) -> Result<Command, Refusal> {
    let segments = segments(request.path)?;
    let segments: &[&str] = match &segments[..] {
        [] => &[],
        [empty] if empty.is_empty() => &[],
        [function] => &[function.as_str()],
        _ => return Err(Refusal::new(404, "ask for /api/pci or /api/pci/ADDRESS")),
    };
    match (request.method, segments) {
        ("GET" | "HEAD", []) => Ok(Command::Show(None)),
        ("GET" | "HEAD", [function]) => Ok(Command::Show(Some(tool::address(function)?))),
        ("POST", [function]) => {
            let physical = tool::address(function)?;
            let count = count(request)?;
            permit(request, admin)?;
            Ok(Command::SetVirtualFunctions { physical, count })
        }
        _ => Err(Refusal::new(
            405,
            "ask with GET, or send POST to /api/pci/ADDRESS",
        )),
    }
}

/// The only thing that can be set.
fn count(request: &Request<'_>) -> Result<u16, Refusal> {
    if request.media_type() != "application/json" {
        return Err(Refusal::new(
            415,
            "send JSON with Content-Type: application/json",
        ));
    }
    let body = str::from_utf8(request.body).ok();
    let words = body.and_then(|body| words_of_json(body).ok());
    let count = match words.as_deref() {
        Some([word, count]) if word == "sriov_numvfs" => count.parse().ok(),
        _ => None,
    };
    let example = || Refusal::new(400, String::from("send {\"sriov_numvfs\": 4}"));
    count.ok_or_else(example)
}

impl From<ToolError> for Refusal {
    fn from(error: ToolError) -> Self {
        let status = match error {
            ToolError::NoFunction(_) => 404,
            ToolError::SrIov(_, SrIovError::Busy) => 409,
            ToolError::SrIov(_, SrIovError::NoBusNumbers | SrIovError::NoRoom) => 507,
            ToolError::SrIov(_, SrIovError::Refused) => 500,
            _ => 400,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: Request<'_> = Request {
        method: "POST",
        path: "/0000:03:00.0",
        content_type: Some("application/json"),
        host: Some("10.0.2.15"),
        origin: None,
        fetch_site: None,
        body: br#"{"sriov_numvfs": 4}"#,
    };

    fn status(request: &Request<'_>) -> u16 {
        command(request, Admin::Everybody).unwrap_err().status
    }

    #[test]
    fn requests_are_commands() {
        let address = tool::address("0000:03:00.0").unwrap();
        let get = |path| Request {
            method: "GET",
            path,
            ..SET
        };
        for path in ["", "/"] {
            let all = command(&get(path), Admin::Nobody);
            assert_eq!(all, Ok(Command::Show(None)), "{path}");
        }
        for path in ["/0000:03:00.0", "/03:00.0", "/0000%3a03%3A00.0/"] {
            let one = command(&get(path), Admin::Nobody);
            assert_eq!(one, Ok(Command::Show(Some(address))), "{path}");
        }
        let set = Command::SetVirtualFunctions {
            physical: address,
            count: 4,
        };
        assert_eq!(command(&SET, Admin::Everybody), Ok(set));
    }

    #[test]
    fn what_changes_something_is_not_for_everybody() {
        assert_eq!(command(&SET, Admin::Nobody).unwrap_err().status, 403);
        let foreign = Request {
            origin: Some("http://example.com"),
            ..SET
        };
        assert_eq!(status(&foreign), 403);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for body in [
            "",
            "4",
            "{}",
            r#"{"sriov_numvfs": -1}"#,
            r#"{"sriov_numvfs": 65536}"#,
            r#"{"sriov_numvfs": 4.0}"#,
            r#"{"sriov_numvfs": true}"#,
            r#"{"sriov_numvfs": 4, "x": 1}"#,
            r#"{"x": 4}"#,
        ] {
            let body = body.as_bytes();
            assert_eq!(status(&Request { body, ..SET }), 400);
        }
        let content_type = Some("text/plain");
        assert_eq!(
            status(&Request {
                content_type,
                ..SET
            }),
            415
        );
        for (path, expected) in [("/x", 400), ("", 405), ("/03:00.0/x", 404), ("/%", 400)] {
            assert_eq!(status(&Request { path, ..SET }), expected, "{path}");
        }
        let method = "DELETE";
        assert_eq!(status(&Request { method, ..SET }), 405);
    }

    #[test]
    fn refusals_say_whose_fault_it_is() {
        let address = tool::address("03:00.0").unwrap();
        for (error, status) in [
            (ToolError::NoFunction(address), 404),
            (ToolError::NotCapable(address), 400),
            (ToolError::SrIov(address, SrIovError::Busy), 409),
            (
                ToolError::SrIov(address, SrIovError::BadCount { total: 2 }),
                400,
            ),
            (ToolError::SrIov(address, SrIovError::NoRoom), 507),
            (ToolError::SrIov(address, SrIovError::NoBusNumbers), 507),
            (ToolError::SrIov(address, SrIovError::Refused), 500),
        ] {
            let text = error.to_string();
            assert_eq!(Refusal::from(error).status, status, "{text}");
        }
    }
}
