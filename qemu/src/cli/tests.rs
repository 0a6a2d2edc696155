//! Options become a machine, and wrong ones are refused.

use super::*;
use clap::CommandFactory;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["qemu"], arguments].concat())
}

fn line(arguments: &[&str]) -> String {
    let cli = parse(&[arguments, &["--accel", "tcg"]].concat()).unwrap();
    let image = Image::raw("d.img", cli.access());
    cli.guest("k".into(), Some(image), Some(8080), &[])
        .command_line()
}

/// The line of a machine with functions of these kinds.
fn line_beside(given: &[Kind], arguments: &[&str]) -> String {
    let fixed = ["--accel", "tcg", "--passthrough", "3b:00.2"];
    let cli = parse(&[arguments, &fixed].concat()).unwrap();
    let image = cli.source(given).map(|_| Image::raw("d.img", cli.access()));
    cli.guest("k".into(), image, None, given).command_line()
}

#[test]
fn options_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_option_reaches_the_machine() {
    for (arguments, part) in [
        (&["--memory", "32M"][..], "-m 32M"),
        (&["--machine", "pc"], "-machine pc"),
        (&["--cpu", "qemu64"], "-cpu qemu64"),
        (&["--read-only"], "read-only=on,file=d.img"),
        (&["--queues", "4"], "num-queues=4"),
        (
            &["--net", "tap=tap0", "--queues", "2"],
            "script=no,downscript=no,queues=2",
        ),
        (&["--gdb"], "-s -S"),
        (&["--append", "log=debug"], "-append 'ip=dhcp log=debug'"),
        (&["--append", "ip=10.0.2.9/24"], "-append 'ip=10.0.2.9/24'"),
        (
            &["--blk", "vhost"],
            "-append 'ip=dhcp blk=vhost vhost.noiommu=unsafe'",
        ),
        (
            &["--net", "vhost"],
            "-append 'ip=dhcp net=vhost vhost.noiommu=unsafe'",
        ),
        (
            &[
                "--net",
                "tap=tap0,vhost",
                "--blk",
                "vhost",
                "--append",
                "log=debug",
            ],
            "-append 'ip=dhcp net=vhost blk=vhost vhost.noiommu=unsafe log=debug'",
        ),
        (&["--net", "tap=tap0,vhost"], "ifname=tap0,"),
        (&["--blk", "virtio", "--net", "virtio"], "-append 'ip=dhcp'"),
        (
            &["--iommu", "intel", "--blk", "vhost", "--net", "vhost"],
            "-append 'ip=dhcp net=vhost blk=vhost'",
        ),
        (
            &["--iommu", "virtio"],
            "virtio-blk-pci,drive=disk0,num-queues=1,disable-legacy=on,iommu_platform=on",
        ),
        (&["--iommu", "amd"], "-device 'amd-iommu,intremap=on'"),
        (&["--admin"], "-append 'ip=dhcp admin=http'"),
        (
            &["--disk", "nbd://10.0.2.2/my%20disk"],
            "-append 'ip=dhcp nbd=nbd://10.0.2.2:10809/my%20disk'",
        ),
        (&["--ifcvf"], "-append 'ip=dhcp ifcvf=qemu'"),
        (
            &["--ifcvf"],
            "virtio-net-pci,netdev=net0,romfile=,disable-legacy=on,iommu_platform=on",
        ),
        (
            &["--ifcvf", "--net", "tap=tap0"],
            "virtio-net-pci,netdev=net0,romfile=,disable-legacy=on,iommu_platform=on",
        ),
        (
            &["--ifcvf"],
            "virtio-blk-pci,drive=disk0,num-queues=1,disable-legacy=on,iommu_platform=on",
        ),
        (&["--", "-d", "int"], "-append 'ip=dhcp' -d int"),
    ] {
        // Options for QEMU come last, so the accelerator is left out of those.
        let line = match arguments {
            ["--", ..] => parse(&[&["--accel", "tcg"], arguments].concat())
                .unwrap()
                .guest(
                    "k".into(),
                    Some(Image::raw("d.img", Access::ReadWrite)),
                    Some(8080),
                    &[],
                )
                .command_line(),
            _ => line(arguments),
        };
        assert!(
            line.contains(part),
            "{arguments:?}: {part} is not in {line}"
        );
    }
}

#[test]
fn no_network_means_no_card_and_no_address() {
    let line = line(&["--net", "none"]);
    assert!(!line.contains("virtio-net"), "{line}");
    assert!(!line.contains("-append"), "{line}");
}

#[test]
fn functions_take_the_place_of_what_nobody_asked_for() {
    use Kind::{Blk, Net};
    let (user, tap, disk) = ("user,id=net0", "tap,id=net0", "virtio-blk-pci");
    for (given, arguments, there, gone) in [
        (&[Net][..], &[][..], &[disk, "'ip=dhcp'"][..], &[user][..]),
        (&[Net], &["--net", "tap=tap0"], &[tap, disk], &[user]),
        (&[Net], &["--net", "none"], &[disk, "'ip=dhcp'"], &[user]),
        (&[Net], &["--net", "vhost"], &["net=vhost"], &[user]),
        (
            &[Net],
            &["--append", "ip=10.0.0.2/24"],
            &["ip=10.0.0.2/24"],
            &["dhcp"],
        ),
        (&[Blk], &[], &[user], &[disk]),
        (&[Blk], &["--serve", "."], &[user, disk], &[]),
        (&[Blk], &["--disk", "d"], &[user, disk], &[]),
        (&[Net, Blk], &[], &["'ip=dhcp'"], &[user, disk]),
        (&[], &[], &[user, disk], &[]),
    ] {
        let line = line_beside(given, arguments);
        assert!(
            line.contains("vfio-pci,host=0000:3b:00.2,romfile="),
            "{line}"
        );
        for part in there {
            assert!(
                line.contains(part),
                "{given:?} {arguments:?}: {part}: {line}"
            );
        }
        for part in gone {
            assert!(
                !line.contains(part),
                "{given:?} {arguments:?}: {part}: {line}"
            );
        }
    }
}

#[test]
fn options_of_what_a_function_replaces_are_refused() {
    for (given, arguments, part) in [
        (
            Kind::Net,
            &["--port", "8080"][..],
            "--port needs --net user, whose place",
        ),
        (
            Kind::Blk,
            &["--read-only"],
            "--read-only needs a disk of QEMU's",
        ),
    ] {
        let cli = parse(arguments).unwrap();
        let message = cli.check_beside(&[given]).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        cli.check_beside(&[]).unwrap();
    }
    let served = parse(&["--read-only", "--serve", "."]).unwrap();
    served.check_beside(&[Kind::Blk]).unwrap();
}

#[test]
fn same_function_twice_is_refused() {
    let twice = ["--passthrough", "3b:00.2", "--passthrough", "0000:3b:00.2"];
    let message = parse(&twice).unwrap().check().unwrap_err().to_string();
    assert_eq!(message, "--passthrough 0000:3b:00.2 is there twice");
    let both = ["--passthrough", "3b:00.2", "--passthrough", "3b:00.3"];
    parse(&both).unwrap().check().unwrap();
}

#[test]
fn vhost_without_an_iommu_is_known() {
    for (arguments, expected) in [
        (&["--blk", "vhost"][..], true),
        (&["--net", "vhost"], true),
        (&["--net", "user,virtio", "--blk", "virtio"], false),
        (&["--net", "vhost", "--iommu", "amd"], false),
        (&[], false),
    ] {
        assert_eq!(
            parse(arguments).unwrap().has_unconfined_vhost(),
            expected,
            "{arguments:?}"
        );
    }
}

#[test]
fn an_iommu_is_refused_where_qemu_has_none() {
    for (arguments, part) in [
        (&["--iommu", "intel", "--machine", "pc"][..], "q35"),
        (
            &["--iommu", "amd", "--passthrough", "3b:00.2"],
            "--iommu intel",
        ),
    ] {
        let error = parse(arguments).unwrap().check().unwrap_err();
        let message = format!("{error:#}");
        assert!(message.starts_with("--iommu: ") && message.contains(part));
    }
}

#[test]
fn wrong_values_are_refused_with_the_option_named() {
    for (arguments, part) in [
        (&["--memory", "1K"][..], "not a memory size"),
        (&["--memory", "1M"], "in which no kernel boots"),
        (&["--port", "0"], "--port"),
        (&["--port", "65536"], "--port"),
        (&["--queues", "0"], "--queues"),
        (&["--queues", "65"], "--queues"),
        (&["--machine", "virt"], "--machine"),
        (&["--net", "bridge"], "write user, none or tap=INTERFACE"),
        (&["--net", "none,vhost"], "write none alone"),
        (&["--blk", "vdpa"], "--blk"),
        (&["--blk", "vdpa"], "virtio, vhost"),
        (&["--serve", "a", "--disk", "b"], "cannot be used with"),
        (&["--disk", "nbd://server/x"], "IP address is needed"),
        (&["--disk", "nbds://10.0.2.2/x"], "without TLS"),
        (&["--disk", "nbd://10.0.2.2:0/x"], "from 1 to 65535"),
        (&["--debug", "--release"], "cannot be used with"),
        (&["--kernel", "k", "--debug"], "cannot be used with"),
        (
            &["--passthrough", "eth0"],
            "not the address of a PCI function",
        ),
        (&["--passthrough", "10000:e1:00.0"], "domain above ffff"),
        (&["--bind"], "--passthrough"),
        (&["--force"], "--passthrough"),
        (&["stray"], "stray"),
        (&["--memory", "0"], "in which no kernel boots"),
        (&["--memory", "2T"], "more than"),
        (&["--memory", "-1"], "-1"),
        (&["--queues", "300"], "--queues"),
        (&["--cpu", ""], "not the name of a processor model"),
        (&["--cpu", "max\n"], "not the name of a processor model"),
        (&["--append", "a\nb"], "is one line"),
        (&["--append", "a\u{1}"], "is one line"),
        (&["--net", "tap="], "not the name of a network interface"),
        (
            &["--net", "tap=abcdefghijklmnop"],
            "not the name of a network interface",
        ),
        (&["--accel", "hvf"], "--accel"),
        (&["--iommu", "arm"], "intel, amd, virtio"),
        (
            &["--memory", "1G", "--memory", "2G"],
            "cannot be used multiple times",
        ),
    ] {
        let message = parse(arguments).unwrap_err().to_string();
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
}

#[test]
fn what_must_exist_is_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().to_str().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, [0; 512]).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, part) in [
        (["--disk", "/no/such"], "--disk /no/such"),
        (["--disk", here], "is a directory"),
        (["--serve", "/no/such"], "--serve /no/such"),
        (["--serve", file], "is not a directory"),
        (["--kernel", "/no/such"], "--kernel /no/such"),
        (["--kernel", here], "is not a file"),
        (["--kernel", file], "is no ELF file"),
    ] {
        let message = parse(&arguments).unwrap().check().unwrap_err().to_string();
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
    parse(&["--serve", here]).unwrap().check().unwrap();
    parse(&["--disk", file]).unwrap().check().unwrap();
}

#[test]
fn port_without_the_user_network_is_refused() {
    let message = parse(&["--net", "none", "--port", "80"])
        .unwrap()
        .check()
        .unwrap_err();
    assert!(message.to_string().contains("--port needs --net user"));
}

#[test]
fn a_remote_disk_needs_a_network_and_its_own_permission() {
    let remote = ["--disk", "nbd://10.0.2.2/x"];
    for (more, part) in [
        (&["--net", "none"][..], "needs a network"),
        (&["--read-only"], "a server says itself"),
    ] {
        let cli = parse(&[&remote, more].concat()).unwrap();
        let message = cli.check().unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let cli = parse(&remote).unwrap();
    cli.check().unwrap();
    assert_eq!(cli.features(), ["nbd"]);
    assert!(matches!(cli.source(&[]), Some(Source::Remote(_))));
    assert!(parse(&[]).unwrap().features().is_empty());
    let cli = parse(&["--iommu", "virtio"]).unwrap();
    assert_eq!(cli.features(), ["iommu"]);
}
