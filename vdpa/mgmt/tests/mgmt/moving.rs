//! Moves: who is asked, and what is refused before.

use std::sync::{Arc, Mutex};

use vdpa::device::VdpaDevice;
use vdpa::moving::{MoveError, Mover};
use vdpa::platform::BoxFuture;
use vdpa_mgmt::MgmtError;

use crate::world::{NET, World};

/// Notes what it is asked for, and refuses to move to the device called full.
#[derive(Default)]
struct Notes(Mutex<Vec<(String, String)>>);

impl Mover for Notes {
    fn move_device<'a>(
        &'a self,
        from: &'a Arc<VdpaDevice>,
        to: &'a Arc<VdpaDevice>,
    ) -> BoxFuture<'a, Result<(), MoveError>> {
        Box::pin(async move {
            let names = [from, to].map(|device| device.node().name().to_owned());
            let [from, to] = names;
            let refused = to == "full";
            self.0.lock().unwrap().push((from, to));
            if refused {
                Err(MoveError::LacksQueues)
            } else {
                Ok(())
            }
        })
    }
}

#[test]
fn a_device_is_moved_by_the_one_mover_there_is() {
    let w = World::new();
    w.run(async {
        w.open("net", &[NET]).await;
        for name in ["a", "b", "full"] {
            w.add(name, "net", vdpa_mgmt::Attributes::default())
                .await
                .unwrap();
        }
        let management = &w.management;
        assert_eq!(
            management.move_device("a", "b").await,
            Err(MgmtError::Unsupported)
        );
        let notes = Arc::new(Notes::default());
        management.offer_moves(Arc::<Notes>::clone(&notes));
        assert_eq!(management.move_device("a", "b").await, Ok(()));
        assert_eq!(
            management.move_device("a", "a").await,
            Err(MgmtError::SameDevice)
        );
        assert_eq!(
            management.move_device("a", "c").await,
            Err(MgmtError::NoDevice)
        );
        assert_eq!(
            management.move_device("c", "a").await,
            Err(MgmtError::NoDevice)
        );
        let refused = Err(MgmtError::Move(MoveError::LacksQueues));
        assert_eq!(management.move_device("b", "full").await, refused);
        let asked = notes.0.lock().unwrap();
        assert_eq!(
            *asked,
            [("a", "b"), ("b", "full")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    });
}
