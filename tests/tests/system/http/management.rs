//! Devices that are made, shown and deleted while the site serves, on the console and over HTTP.

use std::thread;

use qemu::format::Access;
use tests::noise;

use crate::http::{ANSWER, Files};

system_tests![
    devices_are_managed_on_the_console,
    devices_are_shown_over_http_and_changed_by_nobody,
    devices_are_changed_over_http_when_the_command_line_allows_it,
    a_disk_is_moved_to_another_function_and_back_under_a_download,
];

fn devices_are_managed_on_the_console() {
    let (mut site, _image) = Files::new().serve();
    for (line, expected) in [
        ("help", "shows the device tree"),
        ("vdpa mgmtdev show vdpasim_net", "  supported_classes net"),
        (
            "vdpa dev show vdpa0",
            "vdpa0: type network mgmtdev pci/0000:00:",
        ),
        (
            "vdpa dev del vdpa0",
            "error: vdpa0: only a device that was added can be deleted",
        ),
        (
            "vdpa dev add name foo mgmtdev vdpasim_net mac 02:00:00:00:00:42",
            "> vdpa dev add",
        ),
        ("vdpa dev show foo", "foo: type network mgmtdev vdpasim_net"),
        (
            "vdpa dev config show foo",
            "foo: mac 02:00:00:00:00:42 link up",
        ),
        ("vdpa dev vstats show foo qidx 0", "foo: queue_type rx"),
        ("devices", "  foo (virtio_vdpa)"),
        (
            "vdpa dev add name foo mgmtdev vdpasim_blk",
            "error: foo: the name is taken",
        ),
        (
            "vdpa dev set name foo mac 02:00:00:00:00:43",
            "> vdpa dev set",
        ),
        (
            "vdpa -j dev config show foo",
            "\"mac\":\"02:00:00:00:00:43\"",
        ),
        ("vdpa dev del foo", "> vdpa dev del foo"),
        ("vdpa dev show foo", "error: foo: there is no such device"),
        ("frobnicate", "there is no command frobnicate; type help"),
    ] {
        if let Err(error) = site.type_line(line, expected, ANSWER) {
            panic!("{line}: {error}: no {expected:?}");
        }
    }
    assert_eq!(site.client().get("/", &[]).unwrap().status(), 200);
}

fn devices_are_shown_over_http_and_changed_by_nobody() {
    let (site, _image) = Files::new().serve();
    let get = |path: &str| json(site.client().send("GET", path, &[], "").unwrap(), 200);
    let managers = get("/api/vdpa/mgmtdev");
    for name in ["vdpasim_net", "vdpasim_blk"] {
        assert!(
            managers["mgmtdev"][name]["supported_classes"].is_array(),
            "{managers}"
        );
    }
    let devices = get("/api/vdpa/dev");
    assert_eq!(devices["dev"]["vdpa0"]["type"], "network");
    let parent = devices["dev"]["vdpa0"]["mgmtdev"].as_str().unwrap();
    assert!(
        managers["mgmtdev"][parent]["max_supported_vqs"].is_u64(),
        "{managers}"
    );
    let configs = get("/api/vdpa/dev/config");
    assert_eq!(configs["config"]["vdpa0"]["link "], "up");
    assert!(configs["config"]["vdpa1"]["capacity"].is_u64(), "{configs}");
    assert_eq!(
        get("/api/vdpa/dev/vdpa1"),
        serde_json::json!({"dev": {"vdpa1": devices["dev"]["vdpa1"]}})
    );
    let add = r#"{"name": "foo", "mgmtdev": "vdpasim_net"}"#;
    for (method, path, body) in [
        ("POST", "/api/vdpa/dev", add),
        (
            "POST",
            "/api/vdpa/dev/vdpa0",
            r#"{"mac": "02:00:00:00:00:01"}"#,
        ),
        ("DELETE", "/api/vdpa/dev/vdpa0", ""),
    ] {
        let refused = site.client().send(method, path, &[JSON], body).unwrap();
        let refused = json(refused, 403);
        assert!(
            refused["error"].as_str().unwrap().contains("admin=http"),
            "{refused}"
        );
    }
    assert_eq!(get("/api/vdpa/dev"), devices);
}

fn devices_are_changed_over_http_when_the_command_line_allows_it() {
    let (site, _image) = Files::new().serve_on(|mut guest| {
        guest.append = "ip=dhcp admin=http".into();
        guest
    });
    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &str, status| {
        let path = format!("/api/vdpa{path}");
        json(
            site.client().send(method, &path, headers, body).unwrap(),
            status,
        )
    };
    let add =
        r#"{"name": "foo", "mgmtdev": "vdpasim_net", "mac": "02:00:00:00:00:42", "mtu": 1400}"#;
    ask("POST", "/dev", &[JSON], add, 201);
    ask("POST", "/dev", &[JSON], add, 409);
    let config = ask("GET", "/dev/foo/config", &[], "", 200);
    assert_eq!(config["config"]["foo"]["mac"], "02:00:00:00:00:42");
    assert_eq!(config["config"]["foo"]["mtu"], 1400);
    let statistics = ask("GET", "/dev/foo/vstats/0", &[], "", 200);
    assert_eq!(statistics["vstats"]["foo"]["queue_type"], "rx");
    ask(
        "POST",
        "/dev/foo",
        &[JSON],
        r#"{"mac": "02:00:00:00:00:43"}"#,
        200,
    );
    let config = ask("GET", "/dev/foo/config", &[], "", 200);
    assert_eq!(config["config"]["foo"]["mac"], "02:00:00:00:00:43");
    let (status, page) = site.client().send("GET", "/", &[], "").unwrap();
    assert!(
        status == 200 && page.contains("/api/vdpa/dev/foo/config"),
        "{page}"
    );

    let text = ("content-type", "text/plain");
    let (status, shown) = site
        .client()
        .send("POST", "/api/vdpa", &[text], "dev show foo")
        .unwrap();
    assert_eq!(status, 200);
    assert!(
        shown.starts_with("foo: type network mgmtdev vdpasim_net "),
        "{shown}"
    );
    ask(
        "POST",
        "",
        &[text, ("origin", "http://evil.example")],
        "dev del foo",
        403,
    );
    ask(
        "DELETE",
        "/dev/foo",
        &[("sec-fetch-site", "cross-site")],
        "",
        403,
    );
    ask("DELETE", "/dev/vdpa0", &[], "", 409);
    ask(
        "POST",
        "/dev",
        &[JSON],
        &format!("{{\"name\": \"{}\"}}", "x".repeat(2000)),
        413,
    );
    ask("POST", "/dev", &[JSON], "{", 400);
    ask("DELETE", "/dev/foo", &[], "", 200);
    ask("GET", "/dev/foo", &[], "", 404);
}

/// Two functions of the board that lead to the same medium, as two functions of a storage card
/// would.
fn a_disk_is_moved_to_another_function_and_back_under_a_download() {
    let bytes = noise::bytes(77, 24 << 20);
    let files = Files::new().with("large.bin", &bytes);
    let (site, _image) = files.serve_on(|mut guest| {
        guest.append = "ip=dhcp admin=http".into();
        guest.disks[0].access = Access::ReadOnly;
        guest.disks.push(guest.disks[0].clone());
        guest
    });
    let ask = |method: &str, path: &str, body: &str, status| {
        let path = format!("/api/vdpa{path}");
        let answer = site.client().send(method, &path, &[JSON], body);
        json(answer.unwrap(), status)
    };
    ask("POST", "/dev/vdpa1/move", r#"{"to": "vdpa1"}"#, 409);
    ask("POST", "/dev/vdpa1/move", r#"{"to": "vdpa0"}"#, 409);
    ask("POST", "/dev/vdpa1/move", r#"{"to": "vdpa9"}"#, 404);
    thread::scope(|scope| {
        let client = site.client();
        let download = scope.spawn(move || client.body("/files/large.bin", &[]).unwrap());
        for (from, to) in [("vdpa1", "vdpa2"), ("vdpa2", "vdpa1")].repeat(3) {
            let body = format!("{{\"to\": \"{to}\"}}");
            ask("POST", &format!("/dev/{from}/move"), &body, 200);
        }
        let (status, body) = download.join().unwrap();
        assert!(status == 200 && body == bytes, "{} bytes", body.len());
    });
    let (status, body) = site.client().body("/files/large.bin", &[]).unwrap();
    assert!(status == 200 && body == bytes, "{} bytes", body.len());
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn json((status, body): (u16, String), expected: u16) -> serde_json::Value {
    assert_eq!(status, expected, "{body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}
