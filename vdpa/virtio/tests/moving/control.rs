//! What an application tells a simulated card that sends every frame back: its filter shows the
//! effect, on the card, on the one that takes over, after sleep, and over vhost.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use embassy_net_driver::{Driver, RxToken, TxToken};
use vdpa::device::Removal;
use vdpa::ops::Abilities;
use vdpa::power;
use vdpa::testing::{FakeParent, Traits};
use vdpa::{Features, VdpaOps};
use vdpa_sim::{Faults, Flavour, SimConfig, SimNet, SimNetConfig};
use vhost_vdpa::vhost_client::{Client, ClientOptions};
use virtio_bus::VirtioBus;
use virtio_net::{Control, ControlError, MacAddress, NetDevice, Switch};

use crate::world::{Made, World, counted, sim_with};

const CONTROL: u16 = 2;
const OWN: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const NEW: [u8; 6] = [0x02, 0, 0, 0, 0, 7];
const FOREIGN: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];

fn card(w: &World, mac: [u8; 6], sim: &SimConfig) -> (SimNet, Box<dyn VdpaOps>) {
    let config = SimNetConfig {
        mac: MacAddress(mac),
        sim: sim.clone(),
        ..SimNetConfig::default()
    };
    SimNet::new(config, &w.kernel).unwrap()
}

/// Lets the stack look at everything there is, for a while.
async fn settle(w: &World, interface: &mut NetDevice) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for _ in 0..20 {
        poll_fn(|cx| {
            while let Some((token, _)) = Driver::receive(interface, cx) {
                frames.push(RxToken::consume(token, |frame| frame.to_vec()));
            }
            Driver::link_state(interface, cx);
            Poll::Ready(())
        })
        .await;
        w.kernel.sleep(Duration::from_millis(1)).await;
    }
    frames
}

/// Whether a frame for this address comes back.
async fn comes_back(w: &World, interface: &mut NetDevice, to: [u8; 6]) -> bool {
    let mut sent = vec![0x5a; 64];
    sent[..6].copy_from_slice(&to);
    sent[12..14].copy_from_slice(&[0x88, 0xb5]);
    poll_fn(|cx| {
        let token = Driver::transmit(interface, cx).unwrap();
        TxToken::consume(token, sent.len(), |frame| frame.copy_from_slice(&sent));
        Poll::Ready(())
    })
    .await;
    let frames = settle(w, interface).await;
    assert!(frames.iter().all(|frame| *frame == sent));
    !frames.is_empty()
}

/// Everything that shows whether the card is as `set_up` has made it.
async fn assert_set_up(w: &World, interface: &mut NetDevice) {
    assert_eq!(interface.mac().0, NEW);
    assert!(comes_back(w, interface, NEW).await);
    assert!(comes_back(w, interface, FOREIGN).await);
}

async fn set_up(control: &Control) {
    control.set_mac(MacAddress(NEW)).await.unwrap();
    control.set_promiscuous(Switch::On).await.unwrap();
}

async fn assert_effects(w: &World, interface: &mut NetDevice, control: &Control) {
    assert!(comes_back(w, interface, OWN).await);
    assert!(!comes_back(w, interface, FOREIGN).await);
    control.set_promiscuous(Switch::On).await.unwrap();
    assert!(comes_back(w, interface, FOREIGN).await);
    control.set_promiscuous(Switch::Off).await.unwrap();
    assert!(!comes_back(w, interface, FOREIGN).await);
    control.set_mac(MacAddress(NEW)).await.unwrap();
    assert_eq!(interface.mac().0, NEW);
    assert!(comes_back(w, interface, NEW).await);
    assert!(!comes_back(w, interface, OWN).await);
    control.set_all_multicast(Switch::On).await.unwrap();
    control.set_all_multicast(Switch::Off).await.unwrap();
}

#[test]
fn the_filter_of_a_card_does_what_it_is_told() {
    let all = SimNet::features();
    let split = all.difference(Features::from(virtio::F::RING_PACKED));
    for features in [all, split] {
        let w = World::new();
        w.platform.block_on(async {
            let (card, ops) = card(&w, OWN, &sim_with(features));
            let device = w.add(ops).await;
            let mut interface = w.made.nets.take().unwrap();
            let control = interface.control().unwrap();
            assert_effects(&w, &mut interface, &control).await;
            assert_eq!(card.mac().0, NEW);
            assert_eq!(counted(&device, CONTROL, "cvq errors"), 0);
            assert_eq!(counted(&device, CONTROL, "cvq requests"), 5);
            w.vdpa.unregister(&device, Removal::Orderly).await;
            let late = control.set_promiscuous(Switch::On).await;
            assert_eq!(late, Err(ControlError::Gone));
            drop(interface);
        });
        assert_eq!(w.memory(), 0);
    }
}

#[test]
fn a_card_over_vhost_does_what_it_is_told() {
    for flavour in [Flavour::Incremental, Flavour::Whole] {
        let w = World::new();
        w.platform.block_on(async {
            let sim = SimConfig {
                flavour,
                ..SimConfig::default()
            };
            let (_, handle) = w.add_open(card(&w, OWN, &sim).1).await;
            let made = Made::none();
            let bus = VirtioBus::new("client");
            made.add_drivers(&bus).await;
            let options = ClientOptions::default();
            let client = Client::attach(handle, &w.kernel, &bus, options).await;
            let client = client.unwrap();
            let mut interface = made.nets.take().unwrap();
            let control = interface.control().unwrap();
            assert_effects(&w, &mut interface, &control).await;
            client.detach().await;
            let late = control.set_mac(MacAddress(OWN)).await;
            assert_eq!(late, Err(ControlError::Gone));
        });
    }
}

#[test]
fn another_card_that_takes_over_is_told_what_was_set() {
    let w = World::new();
    w.platform.block_on(async {
        let plain = SimConfig::default();
        let a = w.add(card(&w, OWN, &plain).1).await;
        let mut interface = w.made.nets.take().unwrap();
        let (other, ops) = card(&w, [0x02, 0, 0, 0, 0, 2], &plain);
        let b = w.add_spare(ops).await;
        set_up(&interface.control().unwrap()).await;
        for _ in 0..2 {
            w.move_device(&a, &b).await.unwrap();
            settle(&w, &mut interface).await;
            assert_set_up(&w, &mut interface).await;
            assert_eq!(other.mac().0, NEW);
            w.move_device(&b, &a).await.unwrap();
            settle(&w, &mut interface).await;
            assert_set_up(&w, &mut interface).await;
        }
        let control = interface.control().unwrap();
        control.set_promiscuous(Switch::Off).await.unwrap();
        w.move_device(&a, &b).await.unwrap();
        settle(&w, &mut interface).await;
        assert!(!comes_back(&w, &mut interface, FOREIGN).await);
    });
}

#[test]
fn a_card_that_has_slept_is_told_what_was_set() {
    let w = World::new();
    w.platform.block_on(async {
        w.add(card(&w, OWN, &SimConfig::default()).1).await;
        let mut interface = w.made.nets.take().unwrap();
        let control = interface.control().unwrap();
        set_up(&control).await;
        for _ in 0..3 {
            power::suspend(&w.root).await.unwrap();
            power::resume(&w.root).await.unwrap();
            settle(&w, &mut interface).await;
            assert_set_up(&w, &mut interface).await;
        }
        control.set_promiscuous(Switch::Off).await.unwrap();
        assert!(!comes_back(&w, &mut interface, FOREIGN).await);
    });
}

#[test]
fn a_command_under_way_survives_a_move_and_sleep() {
    let w = World::new();
    w.platform.block_on(async {
        let faults = Arc::<Faults>::default();
        faults.delay_completions(Duration::from_millis(3));
        let slow = SimConfig {
            faults,
            ..SimConfig::default()
        };
        let a = w.add(card(&w, OWN, &slow).1).await;
        let mut interface = w.made.nets.take().unwrap();
        let b = w.add_spare(card(&w, OWN, &slow).1).await;
        for round in 0..3 {
            let control = interface.control().unwrap();
            let (done, mut wait) = outcome(&w, async move {
                control.set_promiscuous(Switch::On).await?;
                control.set_mac(MacAddress(NEW)).await
            });
            w.kernel.sleep(Duration::from_millis(1)).await;
            match round {
                0 => w.move_device(&a, &b).await.unwrap(),
                1 => w.move_device(&b, &a).await.unwrap(),
                _ => {
                    power::suspend(&w.root).await.unwrap();
                    w.kernel.sleep(Duration::from_millis(10)).await;
                    assert!(done.lock().unwrap().is_none(), "nobody serves the queue");
                    power::resume(&w.root).await.unwrap();
                }
            }
            while done.lock().unwrap().is_none() && wait > 0 {
                wait -= 1;
                settle(&w, &mut interface).await;
            }
            assert_eq!(done.lock().unwrap().take(), Some(Ok(())), "{round}");
            settle(&w, &mut interface).await;
            assert_set_up(&w, &mut interface).await;
        }
    });
}

/// Hardware that tells no queue state, cannot be suspended and starts afresh after each reset.
#[test]
fn a_command_that_old_hardware_has_forgotten_reaches_it_again_after_sleep() {
    use virtio::net::F;
    let w = World::new();
    w.platform.block_on(async {
        let features = F::CTRL_VQ | F::CTRL_RX;
        let traits = Traits {
            abilities: Abilities::empty(),
            ..Traits::default()
        };
        let net = u32::from(u8::from(virtio::Id::Net));
        let sizes = &[16, 16, 16];
        let parent = FakeParent::with_traits(&w.platform, net, features, sizes, &[0; 12], traits);
        w.add(parent.ops()).await;
        let mut interface = w.made.nets.take().unwrap();
        let control = interface.control().unwrap();
        let (done, _) = outcome(&w, async move {
            control.set_promiscuous(Switch::On).await?;
            control.set_all_multicast(Switch::On).await
        });
        settle(&w, &mut interface).await;
        let command = |parent: &FakeParent| {
            let request = parent.pop(CONTROL).unwrap();
            let bytes = parent.read(CONTROL, &request);
            (request, bytes)
        };
        // One has been carried out, so that the queue has gone on since it started, and one is
        // under way.
        let (request, bytes) = command(&parent);
        assert_eq!(bytes, [0, 0, 1]);
        parent.complete(CONTROL, &request, &[0]);
        settle(&w, &mut interface).await;
        assert_eq!(command(&parent).1, [0, 1, 1]);
        let sleep = async {
            power::suspend(&w.root).await.unwrap();
            power::resume(&w.root).await.unwrap();
        };
        // The driver is asked to rewind, which the stack's polling lets it do.
        let stack = async {
            loop {
                settle(&w, &mut interface).await;
            }
        };
        embassy_futures::select::select(sleep, stack).await;
        settle(&w, &mut interface).await;
        let (request, bytes) = command(&parent);
        assert_eq!(bytes, [0, 1, 1], "it was under way");
        parent.complete(CONTROL, &request, &[0]);
        settle(&w, &mut interface).await;
        assert_eq!(*done.lock().unwrap(), Some(Ok(())));
        let (_, bytes) = command(&parent);
        assert_eq!(bytes, [0, 0, 1], "it had been set before");
    });
}

type Done = Arc<std::sync::Mutex<Option<Result<(), ControlError>>>>;

/// Runs a command beside the test; where its result appears, and how often to look for it.
fn outcome(
    w: &World,
    command: impl Future<Output = Result<(), ControlError>> + Send + 'static,
) -> (Done, usize) {
    let done = Done::default();
    let place = Arc::clone(&done);
    w.spawn(async move { *place.lock().unwrap() = Some(command.await) });
    (done, 100)
}
