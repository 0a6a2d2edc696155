//! Request targets, paths, ranges and conditions.

use web::condition::{Conditions, Verdict, Version};
use web::http::target::Target;
use web::management::{self, Admin, ROOT, Request};
use web::path;
use web::range::Selection;

/// Lines of text: method, target, length of the file, `Range`, `If-Range`, `If-None-Match`, and the
/// body.
///
/// # Panics
/// If a target leads where none may lead, or a range is not in its file.
pub fn http_target(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let mut lines = text.splitn(7, '\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let (method, target) = (line().unwrap_or("GET"), line().unwrap_or("/"));
    let length = line()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(1000);
    let conditions = Conditions {
        range: line(),
        if_range: line(),
        if_none_match: line().map(Into::into),
        ..Conditions::default()
    };
    let body = line().unwrap_or_default();
    selection(&conditions, length);
    match Target::parse(method, target) {
        Ok(Target::Resource { path, query, .. }) => {
            assert!(path.starts_with('/'), "{path:?}");
            assert!(
                !path.contains('?') && !query.contains('#'),
                "{path:?} {query:?}"
            );
            let normalized = path::normalized(path);
            assert_eq!(
                path::percent_decode(path),
                path::percent_decode(&normalized)
            );
            names(&normalized);
            manage(method, path, body);
        }
        Ok(Target::Server { .. }) => assert_eq!(method, "OPTIONS"),
        Ok(Target::Tunnel) => assert_eq!(method, "CONNECT"),
        Err(_) => names(target),
    }
}

fn selection(conditions: &Conditions<'_>, length: u64) {
    let version = Version::new(length, None);
    if let Verdict::Send(Selection::Part(range)) = conditions.apply(&version, length) {
        assert!(
            range.start < range.end && range.end <= length,
            "{range:?} of {length}"
        );
    }
}

fn names(path: &str) {
    let Ok(target) = path::Target::parse(path) else {
        return;
    };
    for name in &target.names {
        assert!(!matches!(name.as_str(), "" | "." | ".."), "{path:?}");
        assert!(!name.contains(['/', '\\', '\0']), "{path:?}");
    }
    let shown = target.to_string();
    assert!(
        shown.bytes().all(|byte| byte.is_ascii_graphic()),
        "{shown:?}"
    );
    let again = path::Target::parse(&shown);
    assert_eq!(
        again.map(|again| again.names),
        Ok(target.names),
        "{shown:?}"
    );
}

fn manage(method: &str, path: &str, body: &str) {
    let Some(below) = path.strip_prefix(ROOT) else {
        return;
    };
    for content_type in ["text/plain", "application/json"] {
        let request = Request {
            method,
            path: below,
            content_type: Some(content_type),
            host: Some("127.0.0.1"),
            origin: None,
            fetch_site: None,
            body: body.as_bytes(),
        };
        if let Ok(invocation) = management::invocation(&request, Admin::Nobody) {
            assert!(!invocation.command.changes(), "nobody may change something");
        }
        if let Ok(invocation) = management::invocation(&request, Admin::Everybody) {
            assert!(
                !(invocation.command.changes() && method == "GET"),
                "a link changes something"
            );
        }
    }
}
