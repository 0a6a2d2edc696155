//! Words of the kernel's command line that make no sense.

use std::time::{Duration, Instant};

use tests::run;
use tests::transcript::End;

use crate::network::wire::{console, machine};

system_tests![
    a_place_where_nothing_can_be_reached_is_an_error,
    any_other_word_without_a_sense_is_ignored_with_a_warning,
];

const PATIENCE: Duration = Duration::from_secs(60);

fn a_place_where_nothing_can_be_reached_is_an_error() {
    let long = "1".repeat(2100);
    let lines = [
        ("ip=224.0.0.1/4", "ip: 224.0.0.1 is no address for a host"),
        ("ip=255.255.255.255/32", "ip: 255.255.255.255 is no address"),
        ("ip=0.0.0.0/0", "ip: the prefix length is not"),
        ("ip=127.0.0.1/8", "ip: 127.0.0.1 is no address for a host"),
        (
            "ip=10.0.2.255/24",
            "ip: 10.0.2.255 is no address for a host",
        ),
        ("ip=10.0.2.15/33", "ip: the prefix length is not"),
        ("ip=10.0.2.15/24,gw=10.0.2.15", "ip: 10.0.2.15 cannot be"),
        ("ip=10.0.2.15/24,dns=x", "ip: an option is not"),
        ("ip=", "ip: neither dhcp nor"),
        ("ip", "ip: neither dhcp nor"),
        ("ip=dhcp ip=on", "ip: neither dhcp nor"),
        (&format!("ip={long}"), "ip: neither dhcp nor"),
        ("ip6=", "ip6: neither auto, off nor"),
        ("ip6=10.0.2.15/24", "ip6: neither auto, off nor"),
        ("ip6=2001:db8::1/129", "ip6: the prefix length is not"),
        ("ip6=ff02::1/64", "ip6: ff02::1 is no address for a host"),
        ("ip6=2001:db8::1/64,gw=::", "ip6: :: cannot be the gateway"),
        ("ip6=2001:db8::1/64,mtu=9", "ip6: an option is not"),
        ("net.port=0", "net.port: not a number from 1 to 65535"),
        ("net.port=", "net.port: not a number from 1 to 65535"),
        ("net.port=65536", "net.port: not a number from 1 to 65535"),
        ("net.port=-1", "net.port: not a number from 1 to 65535"),
        ("net.port=http", "net.port: not a number from 1 to 65535"),
    ];
    for (line, error) in lines {
        let (guest, _wire) = machine(line);
        let run = run::boot(&guest, PATIENCE).unwrap();
        let errors: Vec<_> = run
            .console
            .iter()
            .filter(|line| line.contains("error"))
            .collect();
        assert_eq!(errors.len(), 1, "{line:.60}: {:#?}", run.console);
        assert!(errors[0].contains(error), "{line:.60}: {errors:?}");
        assert!(matches!(run.end, End::Code(1)), "{line:.60}: {:?}", run.end);
    }
}

fn any_other_word_without_a_sense_is_ignored_with_a_warning() {
    let long = "x".repeat(2100);
    let lines = [
        ("log=loud", "log=loud: not one of off, error"),
        ("log=", "log=: not one of off, error"),
        ("net=vdpa", "net=vdpa: not one of virtio, vhost"),
        ("blk=", "blk=: not one of virtio, vhost"),
        (
            "vhost.noiommu=yes",
            "vhost.noiommu=yes: the only value is unsafe",
        ),
        ("ifcvf", "ifcvf=: the only value is qemu"),
        ("admin=all", "admin=all: the only value is http"),
        (
            "ipp=dhcp",
            "words of the command line without a meaning: 1, first ipp=dhcp",
        ),
        (
            "a b=c =d",
            "words of the command line without a meaning: 3, first a",
        ),
        (
            "caf\u{e9}",
            "words of the command line without a meaning: 1, first caf\u{e9}",
        ),
        (
            &long,
            "words of the command line without a meaning: 1, first xxxx",
        ),
    ];
    for (words, warning) in lines {
        let (guest, _wire) = machine(&format!("ip=192.168.77.50/24 {words}"));
        let mut guest = guest.spawn().unwrap();
        let served = guest.wait_for("site: serving", Instant::now() + PATIENCE);
        let lines = console(&mut guest);
        assert!(served.is_ok(), "{words:.60}: {lines:#?}");
        let warnings: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("warning"))
            .collect();
        assert_eq!(warnings.len(), 1, "{words:.60}: {lines:#?}");
        assert!(warnings[0].contains(warning), "{words:.60}: {warnings:?}");
    }
}
