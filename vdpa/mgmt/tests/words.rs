//! The words that make a command, and what is said about others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use vdpa::Features;
use vdpa::ops::OpError;
use vdpa_mgmt::tool::{Command, Form, Invocation, Numbers, Options, Refused};
use vdpa_mgmt::{AttributeSet, Attributes, CreateError, Handle, MacAddress, MgmtError};

fn parse(line: &str) -> Invocation {
    let words: Vec<_> = line.split_whitespace().collect();
    Invocation::parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn command(line: &str) -> Command {
    parse(line).command
}

fn error(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    Invocation::parse(&words).unwrap_err().to_string()
}

fn sim_net() -> Handle {
    Handle::named("vdpasim_net")
}

#[test]
fn objects_and_commands() {
    let foo = || Some(String::from("foo"));
    for (line, expected) in [
        ("mgmtdev show", Command::ShowManagers(None)),
        (
            "mgmtdev list vdpasim_net",
            Command::ShowManagers(Some(sim_net())),
        ),
        (
            "mgmtdev show pci/0000:00:04.0",
            Command::ShowManagers(Some(Handle::on_bus("pci", "0000:00:04.0"))),
        ),
        ("dev", Command::ShowDevices(None)),
        ("dev show", Command::ShowDevices(None)),
        ("dev list foo", Command::ShowDevices(foo())),
        ("dev del foo", Command::Delete("foo".into())),
        ("dev config", Command::ShowConfigs(None)),
        ("dev config show", Command::ShowConfigs(None)),
        ("dev config show foo", Command::ShowConfigs(foo())),
        (
            "dev vstats show foo qidx 3",
            Command::ShowStatistics {
                device: "foo".into(),
                queue: 3,
            },
        ),
        (
            "dev set name foo mac 02:00:00:00:00:01",
            Command::SetMac {
                device: "foo".into(),
                mac: MacAddress([2, 0, 0, 0, 0, 1]),
            },
        ),
        (
            "dev move name foo to bar",
            Command::Move {
                device: "foo".into(),
                to: "bar".into(),
            },
        ),
    ] {
        assert_eq!(command(line), expected, "{line}");
    }
    assert_eq!(
        error("dev move name foo"),
        "to DEV is missing; type vdpa dev move name DEV to DEV"
    );
}

#[test]
fn a_device_with_every_attribute() {
    let attributes = Attributes {
        device_features: Some(Features::from_bits(1 << 127 | 0x3_0002_0020)),
        mac: Some(MacAddress([0, 0x11, 0x22, 0x33, 0x44, 0x55])),
        mtu: Some(9000),
        max_queue_pairs: Some(8),
        capacity: Some(131_072),
        block_size: Some(4096),
        queues: Some(4),
        peer: Some("bar".into()),
    };
    let expected = Command::Add {
        name: "foo".into(),
        manager: sim_net(),
        attributes: Box::new(attributes),
    };
    let line = "dev add name foo mgmtdev vdpasim_net device_features 0x80000000000000000000000300020020 mac 00:11:22:33:44:55 mtu 9000 \
        max_vqp 8 capacity 64M block_size 4096 num_queues 4 peer bar";
    assert_eq!(command(line), expected);
    // The order of the words does not matter, and feature bits are always hexadecimal.
    let line = "dev add peer bar num_queues 4 block_size 4096 capacity 67108864 max_vqp 8 mtu 9000 \
        mac 0:11:22:33:44:55 device_features 80000000000000000000000300020020 mgmtdev vdpasim_net name foo";
    assert_eq!(command(line), expected);
}

#[test]
fn objects_and_commands_can_be_abbreviated() {
    assert_eq!(command("m s"), command("mgmtdev show"));
    assert_eq!(command("d s foo"), command("dev show foo"));
    assert_eq!(command("dev co s foo"), command("dev config show foo"));
    assert_eq!(
        command("dev v s foo qidx 1"),
        command("dev vstats show foo qidx 1")
    );
}

#[test]
fn options_stand_anywhere() {
    let json = Options {
        form: Form::Json,
        ..Options::default()
    };
    let pretty = Options {
        form: Form::PrettyJson,
        ..Options::default()
    };
    assert_eq!(parse("dev show").options, Options::default());
    assert_eq!(parse("-j dev show").options, json);
    assert_eq!(parse("dev show --json").options, json);
    for line in [
        "-jp dev show",
        "-j -p dev show",
        "-p dev -j show",
        "--pretty --json dev",
    ] {
        assert_eq!(parse(line).options, pretty, "{line}");
    }
    assert_eq!(parse("-n dev show").options.numbers, Numbers::Raw);
    assert_eq!(parse("-j dev show foo").command, command("dev show foo"));
}

#[test]
fn help_is_there_at_every_level() {
    for line in [
        "",
        "help",
        "mgmtdev",
        "mgmtdev help",
        "dev help",
        "dev config help",
        "dev vstats",
    ] {
        let Command::Help(usage) = command(line) else {
            panic!("{line:?} is no help");
        };
        assert!(usage.starts_with("Usage: vdpa "), "{line:?}: {usage}");
    }
}

#[test]
fn every_error_says_what_to_type() {
    for (line, expected) in [
        (
            "device show",
            "there is no object device; type help, mgmtdev or dev",
        ),
        (
            "dev remove foo",
            "there is no command remove; type help, show, list, add, del, config, vstats, set or move",
        ),
        (
            "-x dev show",
            "there is no option -x; type -j for JSON, -p for JSON in lines, -n for numbers instead of names",
        ),
        (
            "dev show a b",
            "b is one word too many; type vdpa dev show [ DEV ]",
        ),
        ("dev del", "a device is missing; type vdpa dev del DEV"),
        (
            "dev add mgmtdev vdpasim_net",
            "name NAME is missing; type vdpa dev add name NAME mgmtdev MGMTDEV [ ATTRIBUTE VALUE ]...",
        ),
        (
            "dev add name foo",
            "mgmtdev MGMTDEV is missing; type vdpa dev add name NAME mgmtdev MGMTDEV [ ATTRIBUTE VALUE ]...",
        ),
        (
            "dev add name",
            "name has no value; type a name, such as name foo",
        ),
        (
            "dev add name a name b mgmtdev c",
            "name is there twice; type it once",
        ),
        (
            "dev add name a mgmtdev b colour red",
            "there is no attribute colour here; type vdpa dev add name NAME mgmtdev MGMTDEV [ ATTRIBUTE VALUE ]..., \
             `vdpa dev help` lists the attributes",
        ),
        (
            "dev add name a mgmtdev b/c/d",
            "mgmtdev b/c/d is not right; type a management device of `vdpa mgmtdev show`, such as mgmtdev vdpasim_net",
        ),
        (
            "dev add name a mgmtdev b mtu lots",
            "mtu lots is not right; type a number of bytes from 68 to 65535, such as mtu 1500",
        ),
        (
            "dev add name a mgmtdev b mtu 65536",
            "mtu 65536 is not right; type a number of bytes from 68 to 65535, such as mtu 1500",
        ),
        (
            "dev add name a mgmtdev b mac 1:2:3",
            "mac 1:2:3 is not right; type six bytes in hexadecimal, such as mac 52:54:00:12:34:56",
        ),
        (
            "dev add name a mgmtdev b device_features MAC",
            "device_features MAC is not right; type feature bits in hexadecimal, such as device_features 0x300020020",
        ),
        (
            "dev add name a mgmtdev b device_features 0x100000000000000000000000000000000",
            "device_features 0x100000000000000000000000000000000 is not right; type feature bits in hexadecimal, such as device_features 0x300020020",
        ),
        (
            "dev add name a mgmtdev b capacity 513",
            "capacity 513 is not right; type a multiple of 512 bytes, also with K, M or G, such as capacity 64M",
        ),
        (
            "dev set mac 02:00:00:00:00:01",
            "name DEV is missing; type vdpa dev set name DEV mac ADDRESS",
        ),
        (
            "dev set name foo",
            "mac ADDRESS is missing; type vdpa dev set name DEV mac ADDRESS",
        ),
        (
            "dev vstats show",
            "a device is missing; type vdpa dev vstats show DEV qidx INDEX",
        ),
        (
            "dev vstats show foo",
            "qidx INDEX is missing; type vdpa dev vstats show DEV qidx INDEX",
        ),
        (
            "dev vstats show foo qidx -",
            "there is no option -; type -j for JSON, -p for JSON in lines, -n for numbers instead of names",
        ),
        (
            "dev vstats show foo qidx first",
            "qidx first is not right; type the index of a queue, such as qidx 0",
        ),
    ] {
        assert_eq!(error(line), expected, "{line}");
    }
}

#[test]
fn every_refusal_says_what_to_type() {
    let mac = Features::from_bits(1 << 5);
    for error in [
        MgmtError::NoManager,
        MgmtError::NoDevice,
        MgmtError::NoQueue { queues: 2 },
        MgmtError::Exists,
        MgmtError::BadName,
        MgmtError::NotCreated,
        MgmtError::NoQueuePairs,
        MgmtError::MtuTooSmall,
        MgmtError::NotUnicast,
        MgmtError::MissingFeatures(mac),
        MgmtError::UnknownFeatures(mac),
        MgmtError::UnsupportedAttributes(AttributeSet::MTU),
        MgmtError::WrongClass(AttributeSet::MTU),
        MgmtError::Ambiguous(mac),
        MgmtError::TooManyQueues(3),
        MgmtError::Unsupported,
        MgmtError::Again,
        MgmtError::Create(CreateError::OutOfMemory { left: 0 }),
        MgmtError::Device(OpError::Timeout),
    ] {
        let subject = String::from("foo");
        let message = Refused { subject, error }.to_string();
        let advice = message.strip_prefix(&format!("foo: {error}; "));
        assert!(advice.is_some_and(|advice| !advice.is_empty()), "{message}");
    }
    let subject = String::from("foo");
    let error = MgmtError::MissingFeatures(mac);
    assert_eq!(
        Refused { subject, error }.to_string(),
        "foo: the attributes need the features 0x20 too; add 0x20 to device_features or leave it out"
    );
}

#[test]
fn json_says_the_same_as_words() {
    let json = r#"{"mtu": 1500, "name": "foo", "mgmtdev": "vdpasim_net", "capacity": "4K"}"#;
    assert_eq!(
        Command::add_from_json(json).unwrap(),
        command("dev add name foo mgmtdev vdpasim_net mtu 1500 capacity 4K")
    );
    assert_eq!(
        Command::set_from_json("foo", r#"{"mac": "02:00:00:00:00:01"}"#).unwrap(),
        command("dev set name foo mac 02:00:00:00:00:01")
    );
    for json in [
        "",
        "[]",
        "{",
        r#"{"name": true}"#,
        r#"{"name": ["a"]}"#,
        "3",
    ] {
        let error = Command::add_from_json(json).unwrap_err().to_string();
        assert!(
            error.starts_with("this is no JSON object"),
            "{json}: {error}"
        );
    }
    let error = Command::set_from_json("foo", r#"{"name": "bar", "mac": "02:00:00:00:00:01"}"#);
    assert_eq!(
        error.unwrap_err().to_string(),
        "name is there twice; type it once"
    );
}

#[test]
fn only_some_commands_change_something() {
    for (line, changes) in [
        ("dev add name a mgmtdev b", true),
        ("dev del a", true),
        ("dev set name a mac 02:00:00:00:00:01", true),
        ("dev show", false),
        ("mgmtdev show", false),
        ("dev config show", false),
        ("dev vstats show a qidx 0", false),
        ("help", false),
    ] {
        assert_eq!(command(line).changes(), changes, "{line}");
    }
}
