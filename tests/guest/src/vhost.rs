//! The two kinds of consumers on every parent, one after the other, and clients that mean harm.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use embassy_futures::join::join;
use guest_tests::disk::{GUEST_SEED, SCRATCH, SECTOR_BYTES, WRITABLE, fill, first_difference};
use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::time::Instant;
use vdpa::device::VdpaDevice;
use vdpa_sim::Flavour;
use virtio_blk::Disk;
use virtio_net::NetDevice;

use crate::bench::Bench;
use crate::hostile;
use crate::outcome::{Failure, Outcome};
use crate::parents::{ClientSide, flavour, ram_disk, sim_blk, sim_net};
use crate::{ensure, ensure_eq, guest_tests};

guest_tests![
    disks_serve_kernel_and_client_in_turn,
    hostile_clients_harm_only_themselves,
    network_reaches_the_gateway_from_a_client_and_from_the_kernel_again,
    simulated_cards_serve_kernel_and_client_in_turn,
];

async fn disks_serve_kernel_and_client_in_turn(bench: &Bench) -> Outcome {
    let disk = bench.disk(WRITABLE).await?;
    let device = bench.vdpa_device(disk.name())?;
    drop(disk);
    in_turn(bench, &device, SCRATCH.start).await?;
    // The disk is known by its identity, so that the next test finds the one that is there now.
    bench.disk(WRITABLE).await?;
    for how in [Flavour::Incremental, Flavour::Whole] {
        let ops = sim_blk(&ram_disk()?, flavour(how), bench.system.platform())?;
        let device = bench.register(ops).await?;
        in_turn(bench, &device, 0).await?;
        bench.unregister(&device).await?;
    }
    Ok(())
}

/// Each of them reads what the one before has written, and writes something else.
pub async fn in_turn(bench: &Bench, device: &Arc<VdpaDevice>, first: u64) -> Outcome {
    let disk = bench.new_disk(device).await?;
    write(&disk, first, 1).await?;
    drop(disk);
    let client = ClientSide::start(bench, bench.open(device).await?).await?;
    let disk = client.disk()?;
    check(&disk, first, 1).await?;
    write(&disk, first, 2).await?;
    drop(disk);
    client.end().await;
    bench.give_back(device).await;
    let disk = bench.new_disk(device).await?;
    check(&disk, first, 2).await
}

/// How much is written: a few requests of the largest size.
const BYTES: usize = 256 * SECTOR_BYTES;

async fn write(disk: &Disk, first: u64, version: u64) -> Outcome {
    let mut bytes = vec![0; BYTES];
    fill(&mut bytes, first, GUEST_SEED + version);
    Ok(disk.write_from(first, &bytes).await?)
}

async fn check(disk: &Disk, first: u64, version: u64) -> Outcome {
    let mut bytes = vec![0; BYTES];
    disk.read_into(first, &mut bytes).await?;
    ensure_eq!(first_difference(&bytes, first, GUEST_SEED + version), None);
    Ok(())
}

async fn network_reaches_the_gateway_from_a_client_and_from_the_kernel_again(
    bench: &Bench,
) -> Outcome {
    let name = bench.net_name().await?;
    let device = bench.vdpa_device(&name)?;
    for _ in 0..3 {
        bench
            .with_net(async |net| crate::net::reaches_the_gateway(bench, net).await)
            .await?;
        bench.drop_net();
        let client = ClientSide::start(bench, bench.open(&device).await?).await?;
        let mut net = client.net()?;
        let outcome = crate::net::reaches_the_gateway(bench, &mut net).await;
        drop(net);
        client.end().await;
        bench.give_back(&device).await;
        outcome?;
    }
    bench
        .with_net(async |net| crate::net::reaches_the_gateway(bench, net).await)
        .await
}

async fn simulated_cards_serve_kernel_and_client_in_turn(bench: &Bench) -> Outcome {
    for how in [Flavour::Incremental, Flavour::Whole] {
        let (_, ops) = sim_net(flavour(how), bench.system.platform())?;
        let device = bench.register_unused(ops).await?;
        for _ in 0..2 {
            bench.give_back(&device).await;
            let mut net = bench.new_net(&device)?;
            frames_come_back(bench, &mut net).await?;
            drop(net);
            let client = ClientSide::start(bench, bench.open(&device).await?).await?;
            let mut net = client.net()?;
            frames_come_back(bench, &mut net).await?;
            drop(net);
            client.end().await;
        }
        bench.unregister(&device).await?;
    }
    Ok(())
}

/// Sends frames to itself.
async fn frames_come_back(bench: &Bench, net: &mut NetDevice) -> Outcome {
    let now = Instant::ZERO;
    for length in [60, 61, 500, 1514] {
        let mut frame: Vec<u8> = (0..length).map(|place| place as u8).collect();
        frame[..6].copy_from_slice(&net.mac().0);
        frame[6..12].copy_from_slice(&net.mac().0);
        let token = net.transmit(now);
        let token = token.ok_or_else(|| Failure::from("there is no room for a frame"))?;
        token.consume(length, |bytes| bytes.copy_from_slice(&frame));
        let arrival = async {
            loop {
                if let Some((token, _)) = net.receive(now) {
                    return token.consume(<[u8]>::to_vec);
                }
                net.wait().await;
            }
        };
        let received = bench.patiently(arrival).await?;
        ensure!(
            received == frame,
            "a frame of {length} bytes came back changed"
        );
    }
    Ok(())
}

async fn hostile_clients_harm_only_themselves(bench: &Bench) -> Outcome {
    let honest = bench.disk(WRITABLE).await?;
    for seed in 0..8 {
        let platform = bench.system.platform();
        let ops = if seed % 2 == 0 {
            sim_blk(&ram_disk()?, flavour(Flavour::Incremental), platform)?
        } else {
            sim_net(flavour(Flavour::Whole), platform)?.1
        };
        let device = bench.register_unused(ops).await?;
        let handle = bench.open(&device).await?;
        let attack = hostile::attack(bench, handle, seed);
        let work = async {
            for _ in 0..20 {
                write(&honest, SCRATCH.start, seed).await?;
                check(&honest, SCRATCH.start, seed).await?;
            }
            Ok::<(), Failure>(())
        };
        let (attack, work) = bench.patiently(join(attack, work)).await?;
        attack?;
        work?;
        // Whatever the client has done to it, the device serves the next one.
        bench.give_back(&device).await;
        if seed % 2 == 0 {
            in_turn(bench, &device, 0).await?;
        }
        bench.unregister(&device).await?;
    }
    Ok(())
}
