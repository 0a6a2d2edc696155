//! Cards that come and go while the default unikernel serves: what a client of the host and the
//! host itself see.
//!
//! The cards sit behind root ports with PCI Express hot-plug, which QEMU's boards do not use unless
//! told so.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use guest_tests::disk::WRITABLE;
use qemu::build::Profile;
use qemu::exit::guest_code;
use qemu::guest::Guest;
use qemu::image::DiskImage;
use qemu::interrupt::Interrupt;
use qemu::running::Running;
use serde_json::Value;
use tempfile::tempdir;
use tests::disks::TestDisks;
use tests::qmp::{Qmp, Socket};
use tests::web::Site;
use tests::{kernels, noise};

system_tests![
    network_card_comes_and_goes_with_vp_vdpa,
    network_card_comes_and_goes_with_ifcvf,
    disk_goes_under_load_with_vp_vdpa,
    disk_goes_under_load_with_ifcvf,
    cards_lose_their_power_at_work_with_vp_vdpa,
    cards_lose_their_power_at_work_with_ifcvf,
    virtual_functions_come_and_go,
    virtual_functions_are_made_on_the_console_and_over_http,
];

/// A boot that takes longer hangs: an idle host needs half a second.
const BOOT: Duration = Duration::from_secs(60);
/// A card that takes longer to come or to go hangs.
const CARD: Duration = Duration::from_secs(30);

/// Lets the ports do what PCI Express says, instead of what the firmware's tables describe.
const NATIVE: [&str; 2] = [
    "-global",
    "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
];

/// What is served.
const FILE: &str = "/files/file.bin";
const FILE_LEN: usize = 8 << 20;

static KERNEL: LazyLock<PathBuf> =
    LazyLock::new(|| kernels::build("site", Profile::Compact).expect("the site builds"));

/// Who drives the cards.
#[derive(Clone, Copy, Debug)]
enum Parent {
    VpVdpa,
    Ifcvf,
}

impl Parent {
    /// What the kernel is told on its command line.
    fn append(self) -> &'static str {
        match self {
            Self::VpVdpa => "ip=dhcp",
            Self::Ifcvf => "ip=dhcp ifcvf=qemu",
        }
    }

    /// What its cards need.
    fn properties(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::VpVdpa => &[],
            Self::Ifcvf => &[("disable-legacy", "on"), ("iommu_platform", "on")],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::VpVdpa => "vp_vdpa",
            Self::Ifcvf => "ifcvf",
        }
    }
}

/// A site whose network card and disk are each behind a port of their own.
struct Machine {
    site: Site,
    qmp: Qmp,
    parent: Parent,
    bytes: Vec<u8>,
    _image: DiskImage,
}

impl Machine {
    fn boot(parent: Parent) -> Self {
        let bytes = noise::bytes(5, FILE_LEN);
        let folder = tempdir().unwrap();
        fs::write(folder.path().join("file.bin"), &bytes).unwrap();
        let image = DiskImage::from_directory(folder.path(), &Interrupt::default()).unwrap();

        let (mut guest, port) = Site::machine(&KERNEL, image.path()).unwrap();
        guest.append = parent.append().into();
        guest.nets.clear();
        guest.disks.clear();
        let netdev = format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:80");
        let blockdev = format!(
            "driver=raw,node-name=image,file.driver=file,file.filename={}",
            image.path().display()
        );
        guest.extra.extend(NATIVE.map(Into::into));
        guest.extra.extend(["-netdev".into(), netdev.into()]);
        guest.extra.extend(["-blockdev".into(), blockdev.into()]);
        guest
            .extra
            .extend(ports_and_cards(parent).into_iter().map(Into::into));
        let (guest, socket) = Socket::open(guest).unwrap();
        let site = match Site::boot(&guest, port, BOOT) {
            Ok(site) => site,
            Err(error) => panic!("the site does not come up: {error}"),
        };
        let qmp = socket.connect().unwrap();
        Self {
            site,
            qmp,
            parent,
            bytes,
            _image: image,
        }
    }

    /// Takes the card out, in good order.
    fn unplug(&mut self, card: Card) {
        self.qmp.device_del(card.id).unwrap();
        self.qmp.wait_until_deleted(card.id, CARD).unwrap();
        let removed = format!("{}: removed (Clean)", self.parent.name());
        self.site.wait_for(&removed, CARD).unwrap();
        self.site.wait_for("card removed (Orderly)", CARD).unwrap();
    }

    /// Puts the card in. What follows on the console is another device.
    fn plug(&mut self, card: Card) {
        let properties = card.properties(self.parent);
        self.qmp.device_add(card.driver, &properties).unwrap();
        let driven = format!("{}, ", self.parent.name());
        self.site.wait_for(&driven, CARD).unwrap();
        self.site.wait_for("card added, 1 functions", CARD).unwrap();
    }

    /// The file arrives byte for byte.
    fn serves(&self) {
        assert_eq!(self.page(), 200);
        let (status, body) = self.site.client().body(FILE, &[]).unwrap();
        assert_eq!(status, 200);
        assert!(body == self.bytes, "the file arrives with other bytes");
    }

    /// The status of the page. The client may have kept a connection that has ended with the card.
    fn page(&self) -> u16 {
        let deadline = Instant::now() + CARD;
        loop {
            match self.site.client().get("/", &[]) {
                Ok(response) => return response.status().as_u16(),
                Err(error) if Instant::now() > deadline => {
                    panic!("the page does not come: {error}")
                }
                Err(_) => {}
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Card {
    id: &'static str,
    driver: &'static str,
    own: &'static [(&'static str, &'static str)],
}

const NIC: Card = Card {
    id: "nic",
    driver: "virtio-net-pci",
    own: &[("netdev", "net"), ("romfile", ""), ("bus", "port0")],
};

const DISK: Card = Card {
    id: "disk",
    driver: "virtio-blk-pci",
    own: &[("drive", "image"), ("bus", "port1")],
};

impl Card {
    fn properties(self, parent: Parent) -> Vec<(&'static str, &'static str)> {
        let mut all = vec![("id", self.id)];
        all.extend(self.own);
        all.extend(parent.properties());
        all
    }
}

/// A port for each card, and the cards in them.
fn ports_and_cards(parent: Parent) -> Vec<String> {
    let mut arguments = Vec::new();
    for (slot, id) in ["port0", "port1"].into_iter().enumerate() {
        let port = format!("pcie-root-port,id={id},chassis={slot},slot={slot}");
        arguments.extend(["-device".into(), port]);
    }
    for card in [NIC, DISK] {
        let mut device = card.driver.to_owned();
        for (name, value) in card.properties(parent) {
            device = format!("{device},{name}={value}");
        }
        arguments.extend(["-device".into(), device]);
    }
    arguments
}

fn network_card_comes_and_goes(parent: Parent) {
    let mut machine = Machine::boot(parent);
    machine.serves();
    for _ in 0..3 {
        machine.unplug(NIC);
        machine.plug(NIC);
        machine.site.wait_for("by DHCP", CARD).unwrap();
        assert_eq!(machine.page(), 200);
    }
    // The disk has not noticed.
    machine.serves();
}

fn network_card_comes_and_goes_with_vp_vdpa() {
    network_card_comes_and_goes(Parent::VpVdpa);
}

fn network_card_comes_and_goes_with_ifcvf() {
    network_card_comes_and_goes(Parent::Ifcvf);
}

fn disk_goes_under_load(parent: Parent) {
    let mut machine = Machine::boot(parent);
    for _ in 0..3 {
        let (done, loaded) = (AtomicBool::new(false), AtomicBool::new(false));
        let Machine {
            site, qmp, bytes, ..
        } = &mut machine;
        let client = site.client();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        // A download that is cut short is an error; one that is not must be right.
                        if let Ok((200, body)) = client.body(FILE, &[]) {
                            assert!(body == *bytes, "a download has other bytes");
                            loaded.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
            let deadline = Instant::now() + CARD;
            while !loaded.load(Ordering::Relaxed) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
            let deleted = qmp
                .device_del(DISK.id)
                .and_then(|()| qmp.wait_until_deleted(DISK.id, CARD));
            done.store(true, Ordering::Relaxed);
            deleted.unwrap();
        });
        assert!(loaded.into_inner(), "nothing was downloaded before");
        machine
            .site
            .wait_for("card removed (Orderly)", CARD)
            .unwrap();
        // The kernel lives and says that there is no disk.
        assert_eq!(machine.page(), 200);
        let (status, _) = machine.site.client().body(FILE, &[]).unwrap();
        assert_eq!(status, 503);
        machine.plug(DISK);
        machine.serves();
    }
}

fn disk_goes_under_load_with_vp_vdpa() {
    disk_goes_under_load(Parent::VpVdpa);
}

fn disk_goes_under_load_with_ifcvf() {
    disk_goes_under_load(Parent::Ifcvf);
}

/// The test program with these devices, which it does something with.
fn test_program(append: &str, devices: &[String]) -> Guest {
    let kernel = kernels::build("guest-tests", Profile::Compact).unwrap();
    let mut guest = Guest {
        append: append.into(),
        ..Guest::new(kernel)
    };
    guest.extra.extend(NATIVE.map(Into::into));
    guest.extra.extend(devices.iter().map(Into::into));
    guest
}

fn ends_well(running: Running) {
    let ended = running.finish(Instant::now() + BOOT).unwrap();
    assert_eq!(
        guest_code(ended.status).ok(),
        Some(0),
        "{}",
        ended.console.join("\n")
    );
}

fn cards_lose_their_power_at_work(parent: Parent) {
    let disks = TestDisks::new().unwrap();
    let blockdev = format!(
        "driver=raw,node-name=image,file.driver=file,file.filename={}",
        disks.path(WRITABLE).display()
    );
    let mut arguments = ["-netdev", "user,id=net", "-blockdev", &blockdev]
        .map(String::from)
        .to_vec();
    arguments.extend(ports_and_cards(parent));
    let append = format!("cards=surprise {}", parent.append());
    let (guest, socket) = Socket::open(test_program(&append, &arguments)).unwrap();
    let mut running = guest.spawn().unwrap();
    let mut qmp = socket.connect().unwrap();
    for round in 0..3 {
        for card in [NIC, DISK] {
            if let Err(error) = qmp.wait_until_deleted(card.id, CARD) {
                panic!("{}: {error}\n{}", card.id, running.console().join("\n"));
            }
        }
        let gone = format!("cards are gone, round {round}");
        running.wait_for(&gone, Instant::now() + CARD).unwrap();
        for card in [NIC, DISK] {
            let properties = card.properties(parent);
            qmp.device_add(card.driver, &properties).unwrap();
        }
    }
    ends_well(running);
}

fn cards_lose_their_power_at_work_with_vp_vdpa() {
    cards_lose_their_power_at_work(Parent::VpVdpa);
}

fn cards_lose_their_power_at_work_with_ifcvf() {
    cards_lose_their_power_at_work(Parent::Ifcvf);
}

fn virtual_functions_come_and_go() {
    let guest = test_program("cards=sriov", &sriov_card());
    ends_well(guest.spawn().unwrap());
}

fn virtual_functions_are_made_on_the_console_and_over_http() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("file.bin"), b"file").unwrap();
    let image = DiskImage::from_directory(folder.path(), &Interrupt::default()).unwrap();
    let (mut guest, port) = Site::machine(&KERNEL, image.path()).unwrap();
    guest.append = "ip=dhcp admin=http".into();
    guest.extra.extend(sriov_card().into_iter().map(Into::into));
    let mut site = Site::boot(&guest, port, BOOT).unwrap();
    let (_, all) = site.client().body("/api/pci", &[]).unwrap();
    let all: Vec<Value> = serde_json::from_slice(&all).unwrap();
    let card = all.iter().find(|function| function["sriov_totalvfs"] == 4);
    let card = card.unwrap()["address"].as_str().unwrap().to_owned();

    let typed = |site: &mut Site, words: &str, answer: &str| {
        site.type_line(words, answer, CARD).unwrap();
    };
    let has =
        |count: u16| format!("{card} 010802: 1b36:0010 sriov_totalvfs 4 sriov_numvfs {count}");
    typed(&mut site, &format!("pci show {card}"), &has(0));
    let makes = |count: u16| format!("pci sriov {card} numvfs {count}");
    typed(&mut site, &makes(2), &has(2));
    site.wait_for(&format!("010802: 1b36:0010 physfn {card}"), CARD)
        .unwrap();
    typed(&mut site, &makes(3), "set numvfs to 0 first");
    typed(&mut site, &makes(0), &has(0));
    typed(
        &mut site,
        &makes(5),
        "the card has at most 4 virtual functions",
    );

    let path = format!("/api/pci/{card}");
    let json = [("Content-Type", "application/json")];
    let set = |site: &Site, body: &str| site.client().send("POST", &path, &json, body).unwrap();
    let (status, functions) = set(&site, r#"{"sriov_numvfs": 4}"#);
    let functions: Vec<Value> = serde_json::from_str(&functions).unwrap();
    assert_eq!((status, functions.len()), (200, 5));
    assert!(functions[1..].iter().all(|one| one["physfn"] == *card));
    assert_eq!(set(&site, r#"{"sriov_numvfs": 1}"#).0, 409);
    assert_eq!(set(&site, r#"{"sriov_numvfs": 0}"#).0, 200);
    let (_, after) = site.client().body("/api/pci", &[]).unwrap();
    let after: Vec<Value> = serde_json::from_slice(&after).unwrap();
    assert_eq!(after, all);
}

/// A card with virtual functions, behind a port.
fn sriov_card() -> Vec<String> {
    let card = "nvme,serial=card,subsys=subsystem,bus=port0,sriov_max_vfs=4,sriov_vq_flexible=8,\
                sriov_vi_flexible=4,max_ioqpairs=10,msix_qsize=9";
    [
        "pcie-root-port,id=port0,chassis=0,slot=0",
        "nvme-subsys,id=subsystem",
        card,
    ]
    .map(|device| ["-device".to_owned(), device.to_owned()])
    .concat()
}
