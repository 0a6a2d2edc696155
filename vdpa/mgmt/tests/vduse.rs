//! The words of the program for the devices of tasks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use serde_json::{Value, json};
use vdpa::device::VdpaBus;
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform};
use vdpa_mgmt::{Handle, Management, Vduse};
use vdpa_vduse::protocol::{DeviceConfig, QueueSetup};
use vdpa_vduse::{Control, Options, Task};

struct Machine {
    platform: Arc<FakePlatform>,
    management: Arc<Management>,
    control: Arc<Control>,
}

impl Machine {
    fn new() -> Self {
        let platform = FakePlatform::new();
        let bus = VdpaBus::new("vdpa");
        let management = Management::new(bus, |node| Handle::named(node.name()));
        let shared = Arc::clone(&platform) as Arc<dyn Platform>;
        let control = Control::new(&shared);
        let vduse = Vduse::new(&control, &Node::root("machine"), &shared);
        platform.block_on(management.register(vduse)).unwrap();
        Self {
            platform,
            management,
            control,
        }
    }

    /// A card that a task offers as soon as its queues are set up.
    fn create(&self, name: &str) -> Task {
        let config = DeviceConfig {
            name: name.into(),
            vendor_id: 0x1234,
            device_id: 1,
            features: 1 << 32 | 1 << 33,
            queues: 2,
            queue_align: 4096,
            groups: 1,
            address_spaces: 1,
            config: vec![0; 12],
        };
        self.control.create(&config, Options::default()).unwrap();
        self.control.open(name).unwrap()
    }

    fn set_up(&self, task: &Task) {
        for index in 0..2 {
            let setup = QueueSetup {
                index,
                size_max: 256,
                group: 0,
            };
            task.set_up_queue(setup).unwrap();
        }
    }

    fn vdpa(&self, words: &str) -> Result<String, String> {
        let run = vdpa_mgmt::tool::run_words(&self.management, words.split_whitespace());
        let ran = self.platform.block_on(run);
        ran.map_err(|error| error.to_string())
    }

    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.vdpa(&format!("-j {words}")).unwrap()).unwrap()
    }
}

#[test]
fn the_management_device_is_shown_as_iproute2_does() {
    let machine = Machine::new();
    let shown = machine.json("mgmtdev show");
    let vduse = &shown["mgmtdev"]["vduse"];
    assert_eq!(vduse["supported_classes"], json!(["net", "block"]));
    assert_eq!(vduse["max_supported_vqs"], json!(64));
}

#[test]
fn what_a_task_offers_is_added_by_its_name_and_deleted() {
    let machine = Machine::new();
    let add = "dev add name card0 mgmtdev vduse";
    let nobody = machine.vdpa(add).unwrap_err();
    assert!(
        nobody.contains("no task offers a device of this name"),
        "{nobody}"
    );
    let task = machine.create("card0");
    let early = machine.vdpa(add).unwrap_err();
    assert!(early.contains("has not set up the queues"), "{early}");
    assert_eq!(machine.control.offers(), []);
    machine.set_up(&task);
    assert_eq!(machine.control.offers().len(), 1);
    machine.vdpa(add).unwrap();
    let expected = json!({"dev": {"card0": {
        "type": "network",
        "mgmtdev": "vduse",
        "vendor_id": 0x1234,
        "max_vqs": 2,
        "max_vq_size": 256,
    }}});
    assert_eq!(machine.json("dev show card0"), expected);
    assert!(
        machine
            .vdpa("dev add name card1 mgmtdev vduse mtu 1500")
            .is_err()
    );
    machine.vdpa("dev del card0").unwrap();
    // The task is there still, and its device can be had again.
    machine.vdpa(add).unwrap();
    machine.vdpa("dev del card0").unwrap();
    drop(task);
    machine.control.destroy("card0").unwrap();
    assert!(machine.vdpa(add).is_err());
}
