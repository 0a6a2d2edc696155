//! Interrupts: that they arrive, and that the processor sleeps until they do.

use core::time::Duration;

use guest_tests::disk::{SECTOR_BYTES, WRITABLE};

use crate::bench::Bench;
use crate::outcome::{Failure, Outcome};
use crate::{ensure, guest_tests};

guest_tests![
    busy_task_does_not_stop_the_clock,
    completions_raise_interrupts
];

async fn completions_raise_interrupts(bench: &Bench) -> Outcome {
    if bench.system.command_line().get("vectors") == Some("0") {
        return Err(Failure::Ignored("the devices have no vectors".into()));
    }
    let disk = bench.disk(WRITABLE).await?;
    let interrupts = || {
        let device = bench.virtio_device(disk.name())?;
        let report = device
            .node()
            .report()
            .ok_or("the disk's device reports nothing")?;
        Ok::<u64, Failure>(report.queues.iter().map(|queue| queue.interrupts).sum())
    };
    let before = interrupts()?;
    for sector in 0..16 {
        disk.read(sector, disk.buffer(SECTOR_BYTES)?).await?;
    }
    ensure!(interrupts()? > before, "sixteen reads and no interrupt");
    Ok(())
}

async fn busy_task_does_not_stop_the_clock(bench: &Bench) -> Outcome {
    // The timer's interrupt arrives while the task computes, and is not lost.
    let sleep = bench.sleep(Duration::from_millis(5));
    let mut sleep = core::pin::pin!(sleep);
    ensure!(
        embassy_futures::poll_once(sleep.as_mut()).is_pending(),
        "the sleep ended at once"
    );
    let start = bench.now();
    while bench.now() - start < Duration::from_millis(20) {
        core::hint::spin_loop();
    }
    bench.patiently(sleep).await
}
