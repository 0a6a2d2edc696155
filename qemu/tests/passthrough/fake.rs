//! A host of files, and a kernel that reacts to what is written to them.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use qemu::passthrough::host::{Host, Kernel};
use tempfile::TempDir;

/// The function of most tests: a virtual function of an Intel card.
pub const VF: &str = "0000:3b:00.2";

/// Its neighbour.
pub const OTHER: &str = "0000:3b:00.3";

/// Vendor, device, subsystem vendor, subsystem device, class.
pub type Ids = [u32; 5];

pub const IFC_NET: Ids = [0x1af4, 0x1041, 0x8086, 0x001a, 0x02_00_00];
pub const IFC_BLK: Ids = [0x1af4, 0x1042, 0x8086, 0x0002, 0x01_00_00];
pub const BRIDGE: Ids = [0x8086, 0x2030, 0, 0, 0x06_04_00];
pub const USB: Ids = [0x8086, 0xa1af, 0x8086, 0, 0x0c_03_30];

/// The files. They go when this is dropped.
#[derive(Debug)]
pub struct FakeHost {
    root: TempDir,
}

impl FakeHost {
    /// A host on which nothing is missing, with [`VF`] alone in group 42 and bound to `virtio-pci`.
    pub fn new() -> Self {
        let host = Self {
            root: tempfile::tempdir().unwrap(),
        };
        for folder in [
            "sys/bus/pci/devices",
            "sys/devices",
            "sys/kernel/iommu_groups",
        ] {
            host.folder(folder);
        }
        host.write("sys/bus/pci/drivers_probe", "");
        host.driver("vfio-pci");
        host.driver("virtio-pci");
        host.write("dev/vfio/vfio", "");
        host.write("proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
        host.write("proc/cmdline", "quiet intel_iommu=on iommu=pt\n");
        host.write("proc/interrupts", "  0:  5  IR-IO-APIC  2-edge  timer\n");
        host.write(
            "proc/self/status",
            "Name:\tqemu\nCapEff:\t0000000000000000\n",
        );
        host.lock_limit("unlimited");
        host.function(VF, 42, IFC_NET);
        host.bind(VF, "virtio-pci");
        host
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub fn folder(&self, below: &str) {
        fs::create_dir_all(self.path(below)).unwrap();
    }

    pub fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn text(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap()
    }

    pub fn link(&self, target: &str, below: &str) {
        symlink(self.path(target), self.path(below)).unwrap();
    }

    pub fn remove(&self, below: &str) {
        let path = self.path(below);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// What this process may lock, as `/proc/self/limits` says it.
    pub fn lock_limit(&self, bytes: &str) {
        let limits = format!(
            "Limit                     Soft Limit           Hard Limit           Units\n\
             Max locked memory         {bytes:20} {bytes:20} bytes\n"
        );
        self.write("proc/self/limits", &limits);
    }

    pub fn driver(&self, name: &str) {
        for attribute in ["bind", "unbind"] {
            self.write(&format!("sys/bus/pci/drivers/{name}/{attribute}"), "");
        }
    }

    /// Adds a function without a driver.
    pub fn function(&self, address: &str, group: u32, ids: Ids) {
        let folder = format!("sys/devices/pci0000:3a/{address}");
        let names = ["vendor", "device", "subsystem_vendor", "subsystem_device"];
        for (name, id) in names.into_iter().zip(ids) {
            self.write(&format!("{folder}/{name}"), &format!("{id:#06x}\n"));
        }
        self.write(&format!("{folder}/class"), &format!("{:#08x}\n", ids[4]));
        self.write(&format!("{folder}/driver_override"), "(null)\n");
        self.link(&folder, &format!("sys/bus/pci/devices/{address}"));
        let of_group = format!("sys/kernel/iommu_groups/{group}");
        self.folder(&format!("{of_group}/devices"));
        self.link(&folder, &format!("{of_group}/devices/{address}"));
        self.link(&of_group, &format!("{folder}/iommu_group"));
        self.write(&format!("dev/vfio/{group}"), "");
    }

    /// Binds a function to a driver of the host.
    pub fn bind(&self, address: &str, driver: &str) {
        self.driver(driver);
        give(self.root.path(), address, driver);
    }

    /// The driver that has a function.
    pub fn driver_of(&self, address: &str) -> Option<String> {
        driver_of(self.root.path(), address)
    }

    /// What alone may have a function; `(null)` when anybody may.
    pub fn preferred(&self, address: &str) -> String {
        let attribute = format!("sys/bus/pci/devices/{address}/driver_override");
        match self.text(&attribute).trim() {
            "" => "(null)".into(),
            name => name.into(),
        }
    }

    /// Gives a function a network interface.
    pub fn interface(&self, address: &str, name: &str, flags: &str) {
        let folder = format!("sys/devices/pci0000:3a/{address}/net/{name}");
        self.write(&format!("{folder}/flags"), flags);
        self.folder("sys/class/net");
        self.link(&folder, &format!("sys/class/net/{name}"));
    }

    /// Gives a function a disk.
    pub fn disk(&self, address: &str, name: &str, number: &str) {
        let folder = format!("sys/devices/pci0000:3a/{address}/block/{name}");
        self.write(&format!("{folder}/dev"), number);
        self.folder("sys/class/block");
        self.link(&folder, &format!("sys/class/block/{name}"));
    }

    /// This host with a kernel that reacts.
    pub fn host(&self) -> (Host, FakeKernel) {
        let kernel = FakeKernel::new(self.root.path());
        (Host::new(self.root.path(), kernel.clone()), kernel)
    }
}

/// Binds functions as Linux does, and writes down what it is asked for.
#[derive(Clone, Debug)]
pub struct FakeKernel {
    root: PathBuf,
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What was done: attributes as they are named below the root, and modules.
    done: Vec<String>,
    /// The write that fails, counted from 0.
    failing: Option<usize>,
    /// What somebody was told.
    told: Vec<String>,
    /// Files that are not this process's.
    denied: Vec<PathBuf>,
    /// Whether `vfio-pci` takes nothing.
    picky: bool,
}

impl FakeKernel {
    fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            state: Rc::default(),
        }
    }

    pub fn done(&self) -> Vec<String> {
        self.state.borrow().done.clone()
    }

    pub fn told(&self) -> Vec<String> {
        self.state.borrow().told.clone()
    }

    pub fn fail_at(&self, write: Option<usize>) {
        let mut state = self.state.borrow_mut();
        state.done.clear();
        state.failing = write;
    }

    pub fn deny(&self, below: &str) {
        self.state.borrow_mut().denied.push(self.root.join(below));
    }

    pub fn take_nothing(&self) {
        self.state.borrow_mut().picky = true;
    }
}

impl Kernel for FakeKernel {
    fn write(&self, attribute: &Path, text: &str) -> io::Result<()> {
        let below = attribute.strip_prefix(&self.root).unwrap();
        let below = below.to_str().unwrap();
        let mut state = self.state.borrow_mut();
        let number = state.done.len();
        state.done.push(format!("{} > {below}", text.trim_end()));
        if state.failing == Some(number) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        if below.ends_with("/driver_override") {
            return fs::write(attribute, text);
        }
        if !(state.picky && below.ends_with("drivers_probe")) {
            react(&self.root, below, text.trim_end());
        }
        Ok(())
    }

    fn load(&self, module: &str) -> io::Result<()> {
        self.state.borrow_mut().done.push(format!("load {module}"));
        fs::create_dir_all(self.root.join("sys/bus/pci/drivers").join(module))
    }

    fn permits(&self, file: &Path) -> bool {
        !self
            .state
            .borrow()
            .denied
            .iter()
            .any(|denied| denied == file)
    }

    fn tell(&self, line: &str) {
        self.state.borrow_mut().told.push(line.into());
    }
}

/// What Linux does when `address` is written to an attribute that binds or unbinds.
pub fn react(root: &Path, attribute: &str, address: &str) {
    let driver = driver_of(root, address);
    if attribute.ends_with("/unbind") {
        assert!(driver.is_some(), "{address} has no driver to lose");
        fs::remove_file(device(root, address).join("driver")).unwrap();
        return;
    }
    assert_eq!(driver, None, "{address} has a driver");
    let preferred = fs::read_to_string(device(root, address).join("driver_override")).unwrap();
    let preferred = match preferred.trim() {
        "" | "(null)" => None,
        name => Some(name),
    };
    let wanted = match attribute.strip_suffix("/bind") {
        Some(driver) => driver.rsplit('/').next(),
        None => preferred.or(Some("virtio-pci")),
    };
    let wanted = wanted.unwrap();
    assert!(preferred.is_none_or(|preferred| preferred == wanted));
    give(root, address, wanted);
}

fn give(root: &Path, address: &str, driver: &str) {
    let target = root.join("sys/bus/pci/drivers").join(driver);
    symlink(target, device(root, address).join("driver")).unwrap();
}

pub fn driver_of(root: &Path, address: &str) -> Option<String> {
    let driver = fs::read_link(device(root, address).join("driver")).ok()?;
    Some(driver.file_name()?.to_str()?.into())
}

fn device(root: &Path, address: &str) -> PathBuf {
    root.join("sys/bus/pci/devices").join(address)
}
