//! What a device can reach, where it translates its addresses itself.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use virtq::{DeviceMemory, SharedMemory};

use crate::device::Attachment;
use crate::dma::{Isolation, Owner, Trust};
use crate::iotlb::{IovaRange, Permission};
use crate::ops::{Abilities, Backing, OpError};

use super::bench::{Bench, Format};
use super::rig::{Rig, UNTOUCHED};
use super::traffic::{Told, Traffic};
use super::verdict::{OrFail, Stop, Verdict, checks, ensure, equal, skip_unless};

checks! {
    "memory can be mapped and taken away, whole and in parts, in every address space" => map_and_unmap,
    "what overlaps, and what lies outside its addresses, is refused" => refused,
    "memory that was mapped stays mapped over a reset, if it says so, until it is reset" => over_a_reset,
    "the platform's addresses mean nothing to a device that translates" => foreign_addresses,
    "memory that was taken away is not touched any more" => taken_away,
    "a queue reaches what is mapped in the address space of its group, and nothing else" => another_space,
}

const PAGE: u64 = 4096;
const PAGES: u64 = 8;

fn needs_translation(bench: &Bench<'_>) -> Verdict {
    let translates = bench.device.isolation() == Isolation::OnChip;
    skip_unless(translates, "the platform translates its addresses")
}

fn attach(bench: &Bench<'_>) -> Result<Arc<Attachment>, Stop> {
    needs_translation(bench)?;
    let attachment = bench.device.attach(Owner::Kernel, Trust::Isolated);
    attachment.or_fail("the device can be attached to")
}

fn memory(bench: &Bench<'_>) -> Result<Backing, Stop> {
    let len = usize::try_from(PAGES * PAGE).or_fail("a few pages")?;
    let memory = SharedMemory::new(&bench.platform.dma(), len).or_fail("memory")?;
    let memory = DeviceMemory::open(&memory).or_fail("open memory")?;
    Ok(Backing { memory, offset: 0 })
}

/// Pages of the addresses that the device has, counted from the first whole one.
fn pages(attachment: &Attachment, first: u64, count: u64) -> Result<IovaRange, Stop> {
    let start = attachment.iova_range().first().next_multiple_of(PAGE);
    IovaRange::new(start + first * PAGE, count * PAGE).or_fail("a range of addresses")
}

async fn map_and_unmap(bench: &Bench<'_>) -> Verdict {
    let attachment = attach(bench)?;
    let backing = memory(bench)?;
    for space in 0..attachment.space_count() {
        let all = pages(&attachment, 0, PAGES)?;
        let hole = pages(&attachment, 3, 2)?;
        for _ in 0..2 {
            let mapped = attachment.map(space, all, Permission::all(), backing.clone());
            mapped.or_fail(format!("a mapping in address space {space}"))?;
            equal(
                "what is mapped",
                &attachment.mapped_bytes(),
                &(PAGES * PAGE),
            )?;
            let removed = attachment.unmap(space, hole).or_fail("a hole")?;
            equal("the size of the hole", &removed, &(2 * PAGE))?;
            let again = attachment.unmap(space, hole).or_fail("the same hole")?;
            equal("what was in the hole", &again, &0)?;
            let filled = attachment.map(space, hole, Permission::READ, backing.clone());
            filled.or_fail("another mapping in the hole")?;
            attachment.settle(space).await.or_fail("settle")?;
            let removed = attachment.unmap(space, all).or_fail("everything")?;
            equal("what was mapped", &removed, &(PAGES * PAGE))?;
        }
        attachment.settle(space).await.or_fail("settle")?;
    }
    equal("what is left", &attachment.mapped_bytes(), &0)?;
    attachment.detach().await.or_fail("detach")
}

async fn refused(bench: &Bench<'_>) -> Verdict {
    let attachment = attach(bench)?;
    let backing = memory(bench)?;
    let range = pages(&attachment, 2, 2)?;
    let map = |space, range| attachment.map(space, range, Permission::all(), backing.clone());
    map(0, range).or_fail("a mapping")?;
    for (first, count) in [(2, 2), (1, 2), (3, 1), (0, 6)] {
        let answer = map(0, pages(&attachment, first, count)?);
        equal("an overlapping mapping", &answer, &Err(OpError::Overlap))?;
    }
    let answer = map(attachment.space_count(), range);
    equal(
        "an address space too many",
        &answer,
        &Err(OpError::OutOfRange),
    )?;
    let addresses = attachment.iova_range();
    if let Some(below) = addresses.first().checked_sub(PAGE) {
        let outside = IovaRange::new(below, PAGE).or_fail("a page")?;
        equal("a page below", &map(0, outside), &Err(OpError::OutOfRange))?;
    }
    if let Ok(outside) = IovaRange::new(addresses.last().wrapping_add(1).max(1), PAGE)
        && addresses.last() < u64::MAX
    {
        equal("a page above", &map(0, outside), &Err(OpError::OutOfRange))?;
    }
    let beyond = pages(&attachment, 16, PAGES + 1)?;
    equal(
        "more than the memory",
        &map(0, beyond),
        &Err(OpError::OutOfRange),
    )?;
    equal("what is mapped", &attachment.mapped_bytes(), &(2 * PAGE))?;
    attachment.reset_map(0).or_fail("reset_map")?;
    equal("what is left", &attachment.mapped_bytes(), &0)?;
    map(0, range).or_fail("a mapping after reset_map")?;
    attachment.detach().await.or_fail("detach")
}

async fn over_a_reset(bench: &Bench<'_>) -> Verdict {
    let persistent = bench
        .device
        .abilities()
        .contains(Abilities::PERSISTENT_MAPS);
    skip_unless(persistent, "it does not say so")?;
    let mut traffic = Traffic::start(bench, Format::Split).await?;
    traffic.round_trip(bench).await?;
    let mapped = traffic.rig.attachment.mapped_bytes();
    bench.device.reset().await.or_fail("reset")?;
    equal(
        "what is mapped",
        &traffic.rig.attachment.mapped_bytes(),
        &mapped,
    )?;
    traffic.stop(bench).await
}

async fn foreign_addresses(bench: &Bench<'_>) -> Verdict {
    needs_translation(bench)?;
    let rig = Rig::start(bench, Format::Split).await?;
    let table = rig.attachment.with_table(0, |table| {
        ensure(!table.is_empty(), "the rings are not mapped")?;
        for mapping in table.iter() {
            let Backing { memory, offset } = mapping.target;
            let platforms = memory.platform_addr().map(|addr| addr.0 + offset);
            ensure(
                platforms != Some(mapping.range.first()),
                format!("{} is an address of the platform", mapping.range),
            )?;
        }
        Ok(())
    });
    table.or_fail("what is mapped")??;
    rig.stop(bench).await
}

async fn taken_away(bench: &Bench<'_>) -> Verdict {
    needs_translation(bench)?;
    let mut traffic = Traffic::start(bench, Format::Split).await?;
    traffic.round_trip(bench).await?;
    traffic.request(bench, Told::No)?;
    let answers = traffic.answers();
    let victim = traffic.rig.withdraw_answer(answers).await?;
    traffic.kick();
    // The device may answer with an error, break the queue or ask for a reset; it does not write.
    let _ = bench
        .stays_calm(|| traffic.rig.lines[answers].take().ok().flatten())
        .await;
    bench.device.reset().await.or_fail("reset")?;
    let mut bytes = [0; 64];
    // SAFETY: the buffer is with the queue.
    let read = unsafe { victim.memory.read_lent(victim.offset, &mut bytes) };
    read.or_fail("the memory taken away")?;
    ensure(
        bytes == [UNTOUCHED; 64],
        "the device has written memory that was taken away",
    )?;
    traffic.stop(bench).await?;
    let mut traffic = Traffic::start(bench, Format::Split).await?;
    traffic.round_trip(bench).await?;
    traffic.stop(bench).await
}

async fn another_space(bench: &Bench<'_>) -> Verdict {
    needs_translation(bench)?;
    let several = bench.device.space_count() > 1;
    skip_unless(several, "it has one address space")?;
    let mut traffic = in_space(bench, 1).await?;
    traffic.rig.run(bench).await?;
    traffic.request(bench, Told::Yes)?;
    traffic.is_quiet(bench).await?;
    traffic.stop(bench).await?;

    let mut traffic = in_space(bench, 1).await?;
    // The buffers of the request are there before the device runs, so that they are mapped, too.
    traffic.request(bench, Told::No)?;
    copy_space(&traffic.rig.attachment, 0, 1)?;
    traffic.rig.run(bench).await?;
    traffic.kick();
    let number = traffic.number();
    traffic.answer(bench, number).await?;
    traffic.stop(bench).await
}

/// Queues that are ready, with all groups in an address space in which nothing is mapped.
async fn in_space(bench: &Bench<'_>, space: u16) -> Result<Traffic, Stop> {
    let traffic = Traffic::set_up(bench, Format::Split).await?;
    for group in 0..bench.device.group_count() {
        let moved = bench.device.set_group_space(group, space).await;
        moved.or_fail(format!("group {group} in address space {space}"))?;
    }
    Ok(traffic)
}

/// Maps in one address space what is mapped in another one.
fn copy_space(attachment: &Attachment, from: u16, to: u16) -> Verdict {
    let mappings: Vec<_> = attachment
        .with_table(from, |table| {
            let mappings = table.iter();
            mappings
                .map(|mapping| (mapping.range, mapping.permission, mapping.target.clone()))
                .collect()
        })
        .or_fail("what is mapped")?;
    for (range, permission, backing) in mappings {
        let mapped = attachment.map(to, range, permission, backing);
        mapped.or_fail(format!("{range} in address space {to}"))?;
    }
    Ok(())
}
