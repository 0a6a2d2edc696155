//! What the command line takes, and what it says about the rest.

use std::os::unix::net::UnixListener;
use std::{fs, str};

use crate::client::Client;
use crate::program::{Program, run};

#[test]
fn what_makes_no_card_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("card");
    let text = folder.path().join("text");
    fs::write(&text, "text").unwrap();
    let (socket, text) = (socket.to_str().unwrap(), text.to_str().unwrap());
    for (words, expected) in [
        (&["--product", "modern-blk"][..], "needs --disk IMAGE"),
        (
            &["--product", "n3000-net", "--disk", "x"],
            "--disk is for block cards",
        ),
        (
            &["--product", "modern-blk", "--disk", "/no/such"],
            "/no/such: No such file",
        ),
        (
            &[
                "--product",
                "modern-blk",
                "--disk",
                "x",
                "--cable",
                "a",
                "b",
            ],
            "--cable is for network",
        ),
        (
            &["--product", "n3000-net", "--cable", "/no/such/own", "b"],
            "/no/such/own: No such file",
        ),
        (&["--product", "n3000"], "there are n3000-net, c5000x-net"),
        (
            &["--product", "n3000-net", "--misbehave", "x"],
            "never-leaves-reset",
        ),
        (
            &["--product", "n3000-net", "--queues", "0"],
            "0 is not in 1..=32",
        ),
        (
            &["--product", "n3000-net", "--queues", "33"],
            "33 is not in 1..=32",
        ),
        (
            &["--product", "n3000-net", "--mac", "02:1f:c0:00:00"],
            "six bytes",
        ),
        (
            &["--product", "n3000-net", "--queue-size", "3"],
            "power of two",
        ),
        (
            &["--product", "n3000-net", "--vectors", "300"],
            "256 vectors",
        ),
    ] {
        let output = run(&[&["--socket", socket], words].concat());
        let said = str::from_utf8(&output.stderr).unwrap();
        assert!(!output.status.success(), "{words:?}");
        assert!(said.contains(expected), "{words:?}: {said}");
        assert!(!said.contains("panicked"), "{words:?}: {said}");
    }
    let output = run(&["--product", "n3000-net", "--socket", text]);
    let said = str::from_utf8(&output.stderr).unwrap();
    assert!(said.contains("text: Address already in use"), "{said}");
    assert_eq!(fs::read_to_string(text).unwrap(), "text");
}

#[test]
fn socket_of_another_program_is_left_alone_and_one_that_is_left_over_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("card");
    let words = [
        "--product",
        "n3000-net",
        "--socket",
        socket.to_str().unwrap(),
    ];
    let listener = UnixListener::bind(&socket).unwrap();
    let output = run(&words);
    let said = str::from_utf8(&output.stderr).unwrap();
    assert!(said.contains("another program listens there"), "{said}");
    drop(listener);
    assert!(socket.exists());
    let program = Program::start("n3000-net", &words[2..]);
    drop(Client::connect_to(&socket));
    program.finish_well();
    assert!(!socket.exists());
}

#[test]
fn one_client_is_served_and_the_program_ends_with_it() {
    let program = Program::start("n3000-net", &[]);
    let first = Client::agreed(&program);
    assert!(!program.socket().exists());
    drop(first);
    program.finish_well();
}
