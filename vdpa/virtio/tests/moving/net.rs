//! An interface that is moved under traffic.

use std::sync::Arc;
use std::time::Duration;

use vdpa::Features;
use vdpa::device::Removal;
use vdpa_mgmt::MacAddress;
use vdpa_sim::{Faults, Link, SimConfig, SimNet, SimNetConfig};

use crate::traffic::Traffic;
use crate::world::{World, counted, sim_with};

const RX: u16 = 0;
const TX: u16 = 1;

fn formats() -> [Features; 3] {
    let all = SimNet::features();
    let without = |feature: Features| all.difference(feature);
    [
        all,
        without(virtio::F::RING_PACKED.into()),
        without(Features::from(virtio::F::RING_PACKED) | virtio::net::F::MRG_RXBUF.into()),
    ]
}

#[test]
fn no_frame_is_lost_or_doubled_when_an_interface_is_moved_to_and_fro() {
    for features in formats() {
        let w = World::new();
        w.platform.block_on(async {
            let faults = Arc::<Faults>::default();
            faults.delay_completions(Duration::from_micros(700));
            let sim = SimConfig {
                faults,
                ..sim_with(features)
            };
            let a = w.add(w.sim_net(&sim)).await;
            let interface = w.made.nets.take().unwrap();
            let b = w.add_spare(w.sim_net(&sim)).await;
            let traffic = Traffic::start(&w, interface);
            for _ in 0..3 {
                traffic.progress(&w).await;
                w.move_device(&a, &b).await.unwrap();
                traffic.progress(&w).await;
                w.move_device(&b, &a).await.unwrap();
            }
            traffic.progress(&w).await;
            let interface = traffic.finish(&w).await;
            let frames = |queue, what| counted(&a, queue, what) + counted(&b, queue, what);
            assert_eq!(frames(TX, "tx packets"), frames(RX, "rx packets"));
            assert!(counted(&b, TX, "tx packets") > 100, "{features}");
            for device in [a, b] {
                w.vdpa.unregister(&device, Removal::Orderly).await;
            }
            drop(interface);
        });
        assert_eq!(w.memory(), 0, "{features}");
    }
}

#[test]
fn the_driver_learns_of_the_new_address_and_link() {
    let w = World::new();
    w.platform.block_on(async {
        let a = w.add(w.sim_net(&SimConfig::default())).await;
        let mut interface = w.made.nets.take().unwrap();
        let config = SimNetConfig {
            mac: MacAddress([0x02, 0, 0, 0, 0, 9]),
            link: Link::Down,
            ..SimNetConfig::default()
        };
        let (_, ops) = SimNet::new(config, &w.kernel).unwrap();
        let b = w.add_spare(ops).await;
        w.move_device(&a, &b).await.unwrap();
        let state = std::future::poll_fn(|cx| {
            let state = embassy_net_driver::Driver::link_state(&mut interface, cx);
            std::task::Poll::Ready(state)
        });
        let state = state.await;
        assert!(state == embassy_net_driver::LinkState::Down);
        assert_eq!(interface.mac().0, [0x02, 0, 0, 0, 0, 9]);
    });
}
