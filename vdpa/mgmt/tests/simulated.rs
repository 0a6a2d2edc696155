//! The words of the program against the simulators, from the first device to the last.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use serde_json::{Value, json};
use vdpa::device::{VdpaBus, VdpaDevice};
use vdpa::keeper::hold;
use vdpa::testing::FakePlatform;
use vdpa::{Node, Platform};
use vdpa_mgmt::{Handle, Management, SimBlks, SimNets};
use virtio::DeviceStatus;

struct Machine {
    platform: Arc<FakePlatform>,
    bus: Arc<VdpaBus>,
    management: Arc<Management>,
}

impl Machine {
    fn new() -> Self {
        let platform = FakePlatform::new();
        let bus = VdpaBus::new("vdpa");
        let management = Management::new(Arc::clone(&bus), |node| Handle::named(node.name()));
        let shared = Arc::clone(&platform) as Arc<dyn Platform>;
        let root = Node::root("machine");
        platform.block_on(async {
            let nets = SimNets::new(&root, &shared);
            management.register(nets).await.unwrap();
            let disks = SimBlks::new(&root, &shared);
            management.register(disks).await.unwrap();
        });
        Self {
            platform,
            bus,
            management,
        }
    }

    /// What `vdpa` prints after these words.
    fn vdpa(&self, words: &str) -> Result<String, String> {
        let run = vdpa_mgmt::tool::run_words(&self.management, words.split_whitespace());
        self.platform
            .block_on(run)
            .map_err(|error| error.to_string())
    }

    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.vdpa(&format!("-j {words}")).unwrap()).unwrap()
    }

    fn error(&self, words: &str) -> String {
        self.vdpa(words).unwrap_err()
    }

    /// Does what a driver does until features are settled.
    fn negotiate(&self, name: &str) {
        let devices = self.bus.devices();
        let device: Arc<VdpaDevice> = devices
            .into_iter()
            .find(|device| device.node().name() == name)
            .unwrap();
        self.platform.block_on(async {
            let device = hold(&self.bus, &device).await.unwrap();
            device.reset().await.unwrap();
            let driver = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
            device.set_status(driver).await.unwrap();
            let features = device.device_features().unwrap();
            device.set_driver_features(features).unwrap();
            let settled = driver | DeviceStatus::FEATURES_OK;
            device.set_status(settled).await.unwrap();
        });
    }
}

/// The keys of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn json_of_a_simulated_network_device_has_the_programs_keys() {
    let m = Machine::new();
    let managers = m.json("mgmtdev show vdpasim_net");
    assert_eq!(keys(&managers), ["mgmtdev"]);
    let manager = &managers["mgmtdev"]["vdpasim_net"];
    assert_eq!(
        keys(manager),
        ["dev_features", "max_supported_vqs", "supported_classes"]
    );
    assert_eq!(manager["supported_classes"], json!(["net"]));
    assert_eq!(manager["max_supported_vqs"], 65);
    let features = manager["dev_features"].as_array().unwrap();
    for name in [
        "MAC",
        "MTU",
        "MQ",
        "STATUS",
        "CTRL_VQ",
        "VERSION_1",
        "ACCESS_PLATFORM",
    ] {
        assert!(features.contains(&name.into()), "{name}: {features:?}");
    }

    let add = "dev add name foo mgmtdev vdpasim_net mac 00:11:22:33:44:55 mtu 9000 max_vqp 2";
    assert_eq!(m.json(add), json!({}));
    assert_eq!(
        m.json("dev show foo"),
        json!({"dev": {"foo": {
            "type": "network", "mgmtdev": "vdpasim_net",
            "vendor_id": m.bus.devices()[0].vendor_id(), "max_vqs": 5, "max_vq_size": 256,
        }}})
    );
    let mut config = json!({"config": {"foo": {
        "mac": "00:11:22:33:44:55", "link ": "up", "link_announce ": false, "max_vq_pairs": 2, "mtu": 9000,
    }}});
    assert_eq!(m.json("dev config show foo"), config);
    m.negotiate("foo");
    config["config"]["foo"]["negotiated_features"] = manager["dev_features"].clone();
    assert_eq!(m.json("dev config show foo"), config);

    for (queue, queue_type) in ["rx", "tx", "rx", "tx", "control_vq"].iter().enumerate() {
        let statistics = m.json(&format!("dev vstats show foo qidx {queue}"));
        assert_eq!(keys(&statistics), ["vstats"]);
        let statistics = &statistics["vstats"]["foo"];
        assert_eq!(statistics["queue_type"], *queue_type);
        let counters = statistics.as_object().unwrap().iter();
        let counters = counters.filter(|(key, _)| *key != "queue_type");
        assert!(counters.clone().count() > 0 && counters.clone().all(|(_, value)| value.is_u64()));
    }
}

#[test]
fn a_disk_is_shown_too() {
    let m = Machine::new();
    m.vdpa("dev add name d mgmtdev vdpasim_blk capacity 1M block_size 4096 num_queues 2")
        .unwrap();
    let shown = m.json("dev show d");
    assert_eq!(shown["dev"]["d"]["type"], "block");
    assert_eq!(shown["dev"]["d"]["max_vqs"], 2);
    let config = &m.json("dev config show d")["config"]["d"];
    assert_eq!(config["capacity"], 2048);
    assert_eq!(config["blk_size"], 4096);
    assert_eq!(config["num_queues"], 2);
    assert_eq!(config["read_only"], false);
    assert!(config.get("negotiated_features").is_none());
    m.negotiate("d");
    let statistics = m.json("dev vstats show d qidx 1");
    assert_eq!(statistics["vstats"]["d"]["queue_type"], "request");
}

#[test]
fn devices_come_and_go() {
    let m = Machine::new();
    for name in ["a", "b"] {
        let added = m.vdpa(&format!("dev add name {name} mgmtdev vdpasim_net"));
        assert_eq!(added, Ok(String::new()));
    }
    assert_eq!(
        m.vdpa("dev add name c mgmtdev vdpasim_net peer a"),
        Ok(String::new())
    );
    assert_eq!(keys(&m.json("dev show")["dev"]), ["a", "b", "c"]);
    assert_eq!(
        m.vdpa("dev set name b mac 02:00:00:00:00:42"),
        Ok(String::new())
    );
    assert_eq!(
        m.json("dev config show b")["config"]["b"]["mac"],
        "02:00:00:00:00:42"
    );
    for name in ["a", "b", "c"] {
        assert_eq!(m.vdpa(&format!("dev del {name}")), Ok(String::new()));
    }
    assert_eq!(m.json("dev show"), json!({"dev": {}}));
    assert_eq!(m.vdpa("dev show"), Ok(String::new()));
}

#[test]
fn what_is_refused_says_what_to_type() {
    let m = Machine::new();
    m.vdpa("dev add name foo mgmtdev vdpasim_net").unwrap();
    for (words, expected) in [
        (
            "dev add name foo mgmtdev vdpasim_net",
            "foo: the name is taken; type another one, `vdpa dev show` lists those that are taken",
        ),
        (
            "dev add name bar mgmtdev nobody",
            "bar: there is no such management device; `vdpa mgmtdev show` lists them",
        ),
        (
            "dev del bar",
            "bar: there is no such device; `vdpa dev show` lists them",
        ),
        (
            "dev show bar",
            "bar: there is no such device; `vdpa dev show` lists them",
        ),
        (
            "mgmtdev show pci/0000:00:1f.0",
            "pci/0000:00:1f.0: there is no such management device; `vdpa mgmtdev show` lists them",
        ),
        (
            "dev add name bar mgmtdev vdpasim_net mtu 60",
            "bar: an MTU is at least 68; type mtu 68 or more",
        ),
        (
            "dev add name bar mgmtdev vdpasim_net max_vqp 0",
            "bar: a network device has at least one pair of queues; type max_vqp 1 or more",
        ),
        (
            "dev add name bar mgmtdev vdpasim_net capacity 1M",
            "bar: the management device makes no device with the attributes 0x200000 (capacity); \
             leave them out, or take another management device of `vdpa mgmtdev show`",
        ),
        (
            "dev add name bar mgmtdev vdpasim_net mac 52:54:00:12:34:56 device_features 0x300000000",
            "bar: the attributes need the features 0x20 too; add 0x20 to device_features or leave it out",
        ),
        (
            "dev vstats show foo qidx 0",
            "foo: the device is not in use yet; try again when a driver has set it up; \
             `vdpa dev config show` shows negotiated_features then",
        ),
        (
            "dev vstats show foo qidx 32769",
            "foo: the device has 2 queues, counted from 0; type the index of one of them after qidx",
        ),
    ] {
        let said = m.error(words);
        // How many queues a card of one pair has is the simulator's business.
        let queues = m.json("dev show foo")["dev"]["foo"]["max_vqs"].to_string();
        assert_eq!(
            said,
            expected.replace("has 2 queues", &format!("has {queues} queues")),
            "{words}"
        );
    }
}
