//! Doorbells that may be given away: those that have a page for themselves.

use vdpa::ops::NotificationArea;

use crate::bench::Bench;
use crate::outcome::Outcome;
use crate::{ensure, ensure_eq, guest_tests};

guest_tests![pages_are_reported_where_each_queue_has_one];

const PAGE: u64 = 4096;

async fn pages_are_reported_where_each_queue_has_one(bench: &Bench) -> Outcome {
    bench.require_pci()?;
    let page_per_queue = bench.system.command_line().get("page_per_vq") == Some("on");
    for device in bench.system.vdpa().devices() {
        // A queue that is the only one shares its page with none.
        let expected = page_per_queue || device.queue_count() == 1;
        for queue in 0..device.queue_count() {
            let area = device.notification_area(queue)?;
            ensure_eq!(area.is_some(), expected);
            if let Some(NotificationArea { base, len }) = area {
                ensure!(base.0.is_multiple_of(PAGE), "{base:?} is not a page");
                ensure_eq!(len, PAGE);
            }
        }
    }
    Ok(())
}
