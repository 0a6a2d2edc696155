//! The configuration space.

use vdpa_vduse::TaskError;

use super::{play, running};
use crate::driver::CONFIG;

/// CVE-2022-2308: the driver read what happened to lie behind a short configuration.
#[test]
fn behind_the_configuration_there_is_nothing_to_read() {
    play(async |world| {
        let (driver, task, _puppet) = running(world).await;
        let mut bytes = [0xee; 8];
        let end = CONFIG as u32;
        for offset in [end - 7, end, end + 1, u32::MAX] {
            assert!(
                driver.claim.read_config(offset, &mut bytes).is_err(),
                "{offset}"
            );
            assert_eq!(bytes, [0xee; 8]);
        }
        driver.claim.read_config(end - 8, &mut bytes).unwrap();
        assert_eq!(bytes, [4, 5, 6, 7, 8, 9, 10, 11]);
        drop(task);
        driver.leave(world).await;
    });
}

/// Linux, dc1db0060c02: an offset that wraps.
#[test]
fn a_configuration_update_stays_inside() {
    play(async |world| {
        let (driver, task, _puppet) = running(world).await;
        let end = CONFIG as u32;
        for (offset, len) in [
            (end, 1),
            (end - 1, 2),
            (0, 13),
            (u32::MAX, 2),
            (u32::MAX - 1, 4),
        ] {
            let updated = task.update_config(offset, &vec![1; len]);
            assert_eq!(updated, Err(TaskError::OutOfRange), "{len} at {offset}");
        }
        let generation = driver.claim.config_generation().unwrap();
        let mut bytes = [0; CONFIG];
        driver.claim.read_config(0, &mut bytes).unwrap();
        assert!((0..CONFIG as u8).eq(bytes), "nothing has changed");
        task.update_config(end - 1, &[0x77]).unwrap();
        assert_ne!(driver.claim.config_generation().unwrap(), generation);
        driver.leave(world).await;
    });
}
