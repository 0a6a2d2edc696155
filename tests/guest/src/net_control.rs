//! The control queue of QEMU's network card, through virtio and as a client of vhost: the card
//! answers, and frames for a new address come in.

use virtio_net::{Control, ControlError, MacAddress, NetDevice, Switch};

use crate::bench::Bench;
use crate::net::reaches_the_gateway;
use crate::outcome::{Failure, Outcome};
use crate::parents::ClientSide;
use crate::{ensure, ensure_eq, guest_tests};

guest_tests![
    a_client_changes_the_card,
    an_address_that_is_none_is_refused,
    the_kernel_changes_the_card,
];

/// A locally administered address.
const NEW: MacAddress = MacAddress([0x02, 0x52, 0x57, 0x00, 0x00, 0x01]);

async fn the_kernel_changes_the_card(bench: &Bench) -> Outcome {
    bench
        .with_net(async |net| changes_take_effect(bench, net).await)
        .await
}

async fn a_client_changes_the_card(bench: &Bench) -> Outcome {
    let name = bench.net_name().await?;
    let device = bench.vdpa_device(&name)?;
    bench.drop_net();
    let client = ClientSide::start(bench, bench.open(&device).await?).await?;
    let mut net = client.net()?;
    let control = control(&net)?;
    let outcome = changes_take_effect(bench, &mut net).await;
    drop(net);
    client.end().await;
    let late = bench.patiently(control.set_mac(NEW)).await?;
    bench.give_back(&device).await;
    outcome?;
    ensure_eq!(late, Err(ControlError::Gone));
    // A reset has given the card its own address again.
    bench
        .with_net(async |net| {
            ensure!(net.mac() != NEW, "the client's address has stayed");
            reaches_the_gateway(bench, net).await
        })
        .await
}

async fn an_address_that_is_none_is_refused(bench: &Bench) -> Outcome {
    bench
        .with_net(async |net| {
            let before = net.mac();
            let control = control(net)?;
            let set = bench.patiently(control.set_mac(MacAddress([0xff; 6])));
            ensure_eq!(set.await?, Err(ControlError::BadAddress));
            ensure_eq!(net.mac(), before);
            Ok(())
        })
        .await
}

fn control(net: &NetDevice) -> Result<Control, Failure> {
    let control = net.control();
    control.ok_or_else(|| Failure::from("the card has no control queue"))
}

/// The gateway answers to the address that the card has, whether the card looks at addresses or
/// not.
async fn changes_take_effect(bench: &Bench, net: &mut NetDevice) -> Outcome {
    let control = control(net)?;
    let old = net.mac();
    for switch in [Switch::On, Switch::Off] {
        bench.patiently(control.set_promiscuous(switch)).await??;
        bench.patiently(control.set_all_multicast(switch)).await??;
        reaches_the_gateway(bench, net).await?;
    }
    bench.patiently(control.set_mac(NEW)).await??;
    ensure_eq!(net.mac(), NEW);
    let outcome = reaches_the_gateway(bench, net).await;
    bench.patiently(control.set_mac(old)).await??;
    outcome?;
    ensure_eq!(net.mac(), old);
    reaches_the_gateway(bench, net).await
}
