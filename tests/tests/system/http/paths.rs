//! The site over every way to its devices: parent drivers, and consumers in the kernel and beside
//! it.

use std::time::Duration;

use qemu::build::Profile;
use qemu::device::VirtioOptions;
use qemu::guest::Guest;
use qemu::iommu::Iommu;
use qemu::machine::Machine;
use tests::kernels;
use tests::noise;
use tests::run::boot;
use tests::transcript::End;

use crate::http::{Files, sha256};

system_tests![
    every_path_to_the_devices_serves_the_same_files,
    ifcvf_serves_the_same_files_from_qemus_card_and_disk,
    card_without_the_platforms_addresses_is_left_to_vp_vdpa,
    vhost_without_isolation_is_refused_unless_it_is_asked_for_by_name,
    clients_behind_each_iommu_serve_the_same_files_and_ask_for_nothing_by_name,
    machine_whose_iommu_is_required_ends_without_one,
];

fn every_path_to_the_devices_serves_the_same_files() {
    let bytes = noise::bytes(21, (3 << 20) + 5);
    let files = Files::new().with("file.bin", &bytes);
    for (net, blk) in [
        ("virtio", "virtio"),
        ("virtio", "vhost"),
        ("vhost", "virtio"),
        ("vhost", "vhost"),
    ] {
        let (site, _image) = files.serve_on(|mut guest| {
            guest.append = format!("ip=dhcp net={net} blk={blk} vhost.noiommu=unsafe");
            guest
        });
        let (status, body) = site.client().body("/files/file.bin", &[]).unwrap();
        assert_eq!(status, 200, "net={net} blk={blk}");
        assert_eq!(sha256(&body), sha256(&bytes), "net={net} blk={blk}");
        let console = site.console().join("\n");
        let clients = console
            .matches("a client task drives it over vhost")
            .count();
        let expected = [net, blk].iter().filter(|path| **path == "vhost").count();
        assert_eq!(clients, expected, "{console}");
        let (_, page) = site.client().body("/", &[]).unwrap();
        let page = String::from_utf8(page).unwrap();
        for (path, driver) in [("virtio", "virtio_vdpa"), ("vhost", "vhost_vdpa")] {
            assert_eq!(
                page.contains(driver),
                [net, blk].contains(&path),
                "{driver}"
            );
        }
    }
}

fn ifcvf_serves_the_same_files_from_qemus_card_and_disk() {
    let bytes = noise::bytes(22, (3 << 20) + 5);
    let files = Files::new().with("file.bin", &bytes);
    for (machine, paths) in [
        (Machine::Q35, ""),
        (Machine::Pc, ""),
        (Machine::Q35, "blk=vhost vhost.noiommu=unsafe"),
        (Machine::Q35, "net=vhost blk=vhost vhost.noiommu=unsafe"),
    ] {
        let (site, _image) = files.serve_on(|mut guest| {
            guest.machine = machine;
            guest.append = format!("ip=dhcp ifcvf=qemu {paths}");
            guest.nets[0].virtio = VirtioOptions::on_platform();
            guest.disks[0].virtio = VirtioOptions::on_platform();
            guest
        });
        let (status, body) = site.client().body("/files/file.bin", &[]).unwrap();
        assert_eq!(status, 200, "{machine} {paths}");
        assert_eq!(sha256(&body), sha256(&bytes), "{machine} {paths}");
        let console = site.console().join("\n");
        for (id, class) in [("1041", "020000"), ("1042", "010000")] {
            let line = format!("[1af4:{id}] class {class}: ifcvf, ");
            assert!(
                console.contains(&line),
                "{machine} {paths}: {line}\n{console}"
            );
        }
        let clients = console
            .matches("a client task drives it over vhost")
            .count();
        assert_eq!(clients, paths.matches("=vhost").count(), "{console}");
        assert!(!console.contains("vp_vdpa"), "{console}");
    }
}

fn card_without_the_platforms_addresses_is_left_to_vp_vdpa() {
    let (site, _image) = Files::new().with("file.txt", b"x").serve_on(|mut guest| {
        guest.append = "ip=dhcp ifcvf=qemu".into();
        guest.disks[0].virtio = VirtioOptions::on_platform();
        guest.nets[0].virtio = VirtioOptions {
            iommu_platform: None,
            ..VirtioOptions::on_platform()
        };
        guest
    });
    let console = site.console().join("\n");
    for part in [
        "[1af4:1041] class 020000: vp_vdpa, ",
        "[1af4:1042] class 010000: ifcvf, ",
    ] {
        assert!(console.contains(part), "{part}: {console}");
    }
    let answer = site.client().body("/files/file.txt", &[]).unwrap();
    assert_eq!(answer, (200, b"x".to_vec()));
}

fn vhost_without_isolation_is_refused_unless_it_is_asked_for_by_name() {
    let (site, _image) = Files::new().with("file.txt", b"x").serve_on(|mut guest| {
        guest.append = "ip=dhcp blk=vhost".into();
        guest
    });
    let console = site.console().join("\n");
    assert!(
        console.contains("error: vhost-vdpa-0: no client gets it"),
        "{console}"
    );
    assert!(console.contains("vhost.noiommu=unsafe"), "{console}");
    assert!(console.contains("serving no files"), "{console}");
    assert_eq!(
        site.client().get("/files/file.txt", &[]).unwrap().status(),
        503
    );
}

fn clients_behind_each_iommu_serve_the_same_files_and_ask_for_nothing_by_name() {
    let bytes = noise::bytes(23, (3 << 20) + 5);
    let files = Files::new().with("file.bin", &bytes);
    for (iommu, name) in [
        (Iommu::Intel, "dmar0: "),
        (Iommu::Amd, "amdvi0: "),
        (Iommu::Virtio, "viommu0 on virtio0: "),
    ] {
        let (site, _image) = files.serve_on(|mut guest| {
            guest.append = "ip=dhcp net=vhost blk=vhost iommu=required".into();
            guest.iommu = Some(iommu);
            guest.nets[0].virtio = VirtioOptions::on_platform();
            guest.disks[0].virtio = VirtioOptions::on_platform();
            guest
        });
        let (status, body) = site.client().body("/files/file.bin", &[]).unwrap();
        assert_eq!(status, 200, "{iommu:?}");
        assert_eq!(sha256(&body), sha256(&bytes), "{iommu:?}");
        let console = site.console().join("\n");
        let clients = console.matches("a client task drives it over vhost");
        assert_eq!(clients.count(), 2, "{console}");
        assert!(console.contains(name), "{name}: {console}");
    }
}

fn machine_whose_iommu_is_required_ends_without_one() {
    for (append, line) in [
        (
            "iommu=required",
            "error: iommu=required: the machine has no IOMMU that this kernel drives",
        ),
        (
            "iommu=on",
            "error: iommu=on: not one of strict, off, required",
        ),
    ] {
        let kernel = kernels::build("site", Profile::Compact).unwrap();
        let guest = Guest {
            append: append.into(),
            ..Guest::new(kernel)
        };
        let run = boot(&guest, Duration::from_secs(20)).unwrap();
        assert_eq!(run.end, End::Code(1), "{:?}", run.console);
        assert!(
            run.console.iter().any(|said| said.contains(line)),
            "{:?}",
            run.console
        );
    }
}
