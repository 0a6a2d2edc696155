//! Requests as programs and browsers send them.

use super::*;

const HOST: &str = "10.0.2.15:80";

fn request<'a>(method: &'a str, path: &'a str) -> Request<'a> {
    Request {
        method,
        path,
        content_type: None,
        host: Some(HOST),
        origin: None,
        fetch_site: None,
        body: b"",
    }
}

fn json_body<'a>(path: &'a str, body: &'a str) -> Request<'a> {
    Request {
        content_type: Some("application/json; charset=utf-8"),
        body: body.as_bytes(),
        ..request("POST", path)
    }
}

fn words(body: &str) -> Request<'_> {
    Request {
        content_type: Some("text/plain"),
        body: body.as_bytes(),
        ..request("POST", "")
    }
}

/// The command that the words after `vdpa` make.
fn command(line: &str) -> Command {
    let words: Vec<_> = line.split_whitespace().collect();
    Invocation::parse(&words).unwrap().command
}

fn granted(request: &Request<'_>) -> Command {
    invocation(request, Admin::Everybody).unwrap().command
}

fn refused(request: &Request<'_>) -> u16 {
    invocation(request, Admin::Everybody).unwrap_err().status
}

#[test]
fn paths_are_commands() {
    for (method, path, line) in [
        ("GET", "/mgmtdev", "mgmtdev show"),
        ("GET", "/mgmtdev/vdpasim_net", "mgmtdev show vdpasim_net"),
        (
            "GET",
            "/mgmtdev/pci/0000:00:04.0",
            "mgmtdev show pci/0000:00:04.0",
        ),
        (
            "GET",
            "/mgmtdev/pci/0000%3A00%3A04.0",
            "mgmtdev show pci/0000:00:04.0",
        ),
        ("GET", "/dev", "dev show"),
        ("GET", "/dev/", "dev show"),
        ("HEAD", "/dev", "dev show"),
        ("GET", "/dev/vdpa0", "dev show vdpa0"),
        ("GET", "/dev/config", "dev config show"),
        ("GET", "/dev/vdpa0/config", "dev config show vdpa0"),
        ("GET", "/dev/vdpa0/vstats/1", "dev vstats show vdpa0 qidx 1"),
        ("DELETE", "/dev/foo", "dev del foo"),
    ] {
        assert_eq!(
            granted(&request(method, path)),
            command(line),
            "{method} {path}"
        );
    }
}

#[test]
fn bodies_are_commands() {
    let add = json_body(
        "/dev",
        r#"{"name": "foo", "mgmtdev": "vdpasim_net", "mtu": 9000}"#,
    );
    let line = "dev add name foo mgmtdev vdpasim_net mtu 9000";
    assert_eq!(granted(&add), command(line));
    assert_eq!(granted(&words(line)), command(line));
    let set = json_body("/dev/foo", r#"{"mac": "02:00:00:00:00:01"}"#);
    assert_eq!(
        granted(&set),
        command("dev set name foo mac 02:00:00:00:00:01")
    );
    let to = json_body("/dev/foo/move", r#"{"to": "bar"}"#);
    assert_eq!(granted(&to), command("dev move name foo to bar"));
}

#[test]
fn an_answer_is_json_unless_words_ask_for_text() {
    let form = |request: &Request<'_>| {
        let invocation = invocation(request, Admin::Nobody).unwrap();
        invocation.options.form
    };
    assert_eq!(form(&request("GET", "/dev")), Form::Json);
    assert_eq!(form(&words("dev show")), Form::Text);
    assert_eq!(form(&words("-j dev show")), Form::Json);
}

#[test]
fn without_the_word_on_the_command_line_nothing_is_changed() {
    let add = r#"{"name": "foo", "mgmtdev": "vdpasim_net"}"#;
    for changing in [
        json_body("/dev", add),
        json_body("/dev/foo", r#"{"mac": "02:00:00:00:00:01"}"#),
        request("DELETE", "/dev/foo"),
        words("dev del foo"),
    ] {
        let refusal = invocation(&changing, Admin::Nobody).unwrap_err();
        assert_eq!(refusal.status, 403);
        assert!(
            refusal.sentence.contains("admin=http"),
            "{}",
            refusal.sentence
        );
        assert!(invocation(&changing, Admin::Everybody).is_ok());
    }
    assert!(invocation(&words("dev show"), Admin::Nobody).is_ok());
    assert!(invocation(&request("GET", "/dev"), Admin::Nobody).is_ok());
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let change = words("dev del foo");
    for (host, origin, fetch_site) in [
        (HOST, Some("http://evil.example"), None),
        (HOST, Some("null"), None),
        (HOST, Some("https://10.0.2.15:80"), None),
        (HOST, Some("http://10.0.2.15"), None),
        (HOST, None, Some("cross-site")),
        (HOST, None, Some("same-site")),
        // The name of another site that leads to this address.
        (
            "evil.example",
            Some("http://evil.example"),
            Some("same-origin"),
        ),
        ("evil.example:80", None, None),
        ("", None, None),
    ] {
        let foreign = Request {
            host: Some(host),
            origin,
            fetch_site,
            ..change
        };
        assert_eq!(refused(&foreign), 403, "{host} {origin:?} {fetch_site:?}");
    }
    for (host, origin, fetch_site) in [
        (HOST, None, None),
        (
            "localhost:8080",
            Some("http://localhost:8080"),
            Some("same-origin"),
        ),
        ("127.0.0.1:8080", None, Some("none")),
        ("10.0.2.15", Some("http://10.0.2.15"), None),
    ] {
        let own = Request {
            host: Some(host),
            origin,
            fetch_site,
            ..change
        };
        assert!(
            invocation(&own, Admin::Everybody).is_ok(),
            "{host} {origin:?}"
        );
    }
}

#[test]
fn what_cannot_be_understood_is_refused() {
    let form = Request {
        content_type: Some("application/x-www-form-urlencoded"),
        ..words("dev del foo")
    };
    for (request, status) in [
        (request("GET", ""), 404),
        (request("GET", "/"), 404),
        (request("GET", "/device"), 404),
        (request("GET", "/dev/a/b"), 404),
        (request("GET", "/dev/a/vstats/x"), 400),
        (request("GET", "/mgmtdev//x"), 400),
        (request("GET", "/dev/%zz"), 400),
        (request("DELETE", "/dev"), 404),
        (request("DELETE", "/mgmtdev/vdpasim_net"), 404),
        (request("PUT", "/dev/foo"), 405),
        (request("POST", "/dev"), 415),
        (json_body("", "{}"), 415),
        (json_body("/dev/foo/config", "{}"), 404),
        (json_body("/dev", "{"), 400),
        (json_body("/dev", r#"{"name": "foo"}"#), 400),
        (form, 415),
        (words("dev frobnicate"), 400),
        (
            Request {
                body: b"dev \xff",
                ..words("")
            },
            400,
        ),
    ] {
        assert_eq!(refused(&request), status, "{request:?}");
    }
}

#[test]
fn a_refusal_is_an_object_with_a_sentence() {
    let refusal = Refusal::new(404, "say \"please\"");
    let value: serde_json::Value = serde_json::from_str(&refusal.json()).unwrap();
    assert_eq!(value, serde_json::json!({"error": "say \"please\""}));
    assert_eq!(Refusal::too_long().status, 413);
}

#[test]
fn what_management_refuses_has_a_status_of_its_own() {
    use vdpa_mgmt::tool::Refused;
    use vdpa_mgmt::{CreateError, MgmtError};
    for (error, status) in [
        (MgmtError::NoDevice, 404),
        (MgmtError::Exists, 409),
        (MgmtError::MtuTooSmall, 400),
        (MgmtError::Create(CreateError::OutOfMemory { left: 0 }), 507),
    ] {
        let subject = String::from("foo");
        let refusal = Refusal::from(ToolError::from(Refused { subject, error }));
        assert_eq!(refusal.status, status, "{error}");
        assert!(
            refusal.sentence.starts_with("foo: "),
            "{}",
            refusal.sentence
        );
    }
}
