//! Groups of queues and address spaces.

use alloc::format;

use crate::dma::Isolation;
use crate::ops::OpError;

use super::bench::{Bench, Format};
use super::verdict::{OrFail, Verdict, checks, ensure, equal};

checks! {
    "every queue is in a group that exists" => groups,
    "groups are moved between address spaces that exist, before the device starts" => moves,
}

async fn groups(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    ensure(device.group_count() > 0, "it has no group")?;
    ensure(device.space_count() > 0, "it has no address space")?;
    let translates = device.isolation() == Isolation::OnChip;
    ensure(
        translates || device.space_count() == 1,
        "it has several address spaces and does not translate",
    )?;
    for queue in 0..device.queue_count() {
        let group = device.queue_group(queue);
        group.or_fail(format!("the group of queue {queue}"))?;
        let group = device.descriptor_group(queue);
        group.or_fail(format!("the descriptor group of queue {queue}"))?;
    }
    Ok(())
}

async fn moves(bench: &Bench<'_>) -> Verdict {
    let device = &bench.device;
    let (groups, spaces) = (device.group_count(), device.space_count());
    device.reset().await.or_fail("reset")?;
    for (group, space) in [(groups, 0), (0, spaces), (u16::MAX, u16::MAX)] {
        let answer = device.set_group_space(group, space).await;
        equal(
            format!("group {group} in {space}"),
            &answer,
            &Err(OpError::OutOfRange),
        )?;
    }
    if spaces == 1 {
        let answer = device.set_group_space(0, 0).await;
        ensure(
            matches!(answer, Ok(()) | Err(OpError::Unsupported)),
            format!("the only group in the only address space: {answer:?}"),
        )?;
    } else {
        for group in 0..groups {
            for space in (0..spaces).rev() {
                let moved = device.set_group_space(group, space).await;
                moved.or_fail(format!("group {group} in address space {space}"))?;
            }
        }
    }
    bench.agree(Format::Split).await?;
    bench.start().await?;
    let late = device.set_group_space(0, 0).await;
    equal("a move after DRIVER_OK", &late, &Err(OpError::WrongState))
}
