//! The site's answers before an independent judge: `httplint`, the linter behind REDbot.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::tempdir;
use tests::requirement;

use crate::http::Files;
use crate::http::wire::talk;

system_tests![httplint_finds_no_fault_with_any_kind_of_answer,];

const HTTPLINT: &str = "httplint==2026.10.4";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/http/lint.py");

/// What is no fault: a server without a clock sends no `Date` (RFC 9110, 6.6.1), and a bad request
/// is answered with 400.
fn is_right(note: &str) -> bool {
    note.contains("Date") || note.ends_with("The server didn't understand the request.")
}

/// A Python with the package, or why there is none.
fn python(directory: &Path) -> Result<PathBuf, String> {
    let run = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(format!("{}: {error}", program.display())),
        }
    };
    let environment = directory.join("venv");
    let path = environment.display().to_string();
    run(Path::new("python3"), &["-m", "venv", &path])?;
    let python = environment.join("bin/python");
    run(&python, &["-m", "pip", "install", "--quiet", HTTPLINT])?;
    Ok(python)
}

fn httplint_finds_no_fault_with_any_kind_of_answer() {
    let directory = tempdir().unwrap();
    let python = match python(directory.path()) {
        Ok(python) => python,
        Err(missing) => {
            println!("{}", requirement::skip(missing).unwrap());
            return;
        }
    };
    let (site, _image) = Files::new()
        .with("page.html", b"<!doctype html><title>x</title>")
        .with("below/file.bin", &[7; 100_000])
        .serve();
    let port = site.client().port();
    let tag = site.client().get("/files/page.html", &[]).unwrap();
    let tag = tests::web::header(&tag, "etag").unwrap().to_owned();
    let mut files = Vec::new();
    for (number, (request, fields)) in [
        ("GET /", ""),
        ("GET /api/status", ""),
        ("GET /api/vdpa/dev", ""),
        ("GET /api/vdpa/dev/nobody", ""),
        (
            "POST /api/vdpa/dev",
            "Content-Type: application/json\r\nContent-Length: 0\r\n",
        ),
        ("GET /files", ""),
        ("GET /files/", ""),
        ("GET /files/page.html", ""),
        ("GET /files/page.html", &format!("If-None-Match: {tag}\r\n")),
        ("GET /files/below/", ""),
        ("GET /files/below/file.bin", ""),
        ("GET /files/below/file.bin", "Range: bytes=5-99\r\n"),
        ("GET /files/below/file.bin", "Range: bytes=200000-\r\n"),
        ("GET /nothing", ""),
        ("GET /files/%zz", ""),
        ("OPTIONS *", ""),
        ("PUT /", ""),
        ("BREW /", ""),
        ("GET /", "Expect: coffee\r\n"),
        ("GET /", "Host: y\r\n"),
        ("POST /", "Content-Length: 5000\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
        let file = directory.path().join(number.to_string());
        fs::write(&file, talk(port, bytes.as_bytes()).bytes).unwrap();
        files.push((request, file));
    }
    let faulty = "HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 1\r\n\r\na";
    let control = directory.path().join("control");
    fs::write(&control, faulty).unwrap();

    let mut command = Command::new(python);
    command.arg(SCRIPT).args(files.iter().map(|(_, file)| file));
    let output = command.arg(&control).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answers: Vec<&str> = text.split("# /").skip(1).collect();
    assert!(
        output.status.success() && answers.len() == files.len() + 1,
        "{output:?}"
    );
    let faults = |notes: &str| -> Vec<String> {
        let bad = |note: &&str| note.starts_with("* [BAD]") || note.starts_with("* [WARN]");
        let lines = notes.lines().filter(bad).filter(|note| !is_right(note));
        lines.map(str::to_owned).collect()
    };
    for ((request, file), notes) in files.iter().zip(&answers) {
        let answer = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        assert!(
            notes.contains("* ["),
            "nothing was judged of {request}: {notes}\n{head}"
        );
        assert_eq!(faults(notes), [""; 0], "{request}: {head}");
    }
    let control = answers.last().map(|notes| faults(notes));
    assert!(
        control.is_some_and(|faults| !faults.is_empty()),
        "the judge sees what is wrong"
    );
}
