//! What happens to a device while the machine runs reaches the unikernel through the configuration
//! interrupt.

use std::time::{Duration, Instant};

use qemu::build::Profile;
use qemu::device::{Net, NetBackend};
use qemu::guest::Guest;
use tests::kernels;
use tests::qmp::{Cable, Socket};

system_tests![the_cable_is_pulled_and_plugged_in_again,];

/// A step that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn the_cable_is_pulled_and_plugged_in_again() {
    let kernel = kernels::build("site", Profile::Compact).expect("the site builds");
    for path in ["virtio", "vhost"] {
        let net = Net::new(NetBackend::User {
            forwards: Vec::new(),
        });
        let guest = Guest {
            nets: vec![net],
            append: format!("ip=dhcp net={path} vhost.noiommu=unsafe"),
            ..Guest::new(&kernel)
        };
        let (guest, socket) = Socket::open(guest).unwrap();
        let mut machine = guest.spawn().unwrap();
        let mut said = |text| {
            let line = machine.wait_for(text, Instant::now() + PATIENCE);
            line.unwrap_or_else(|error| panic!("{path}: {error}"));
        };
        said("10.0.2.15/24 by DHCP");
        let mut qmp = socket.connect().unwrap();
        qmp.set_link("net0", Cable::Out).unwrap();
        said("net0: link down");
        qmp.set_link("net0", Cable::In).unwrap();
        said("net0: link up");
    }
}
