//! The device tree: who hangs below whom, who drives it, and what it reports.
//!
//! It spans every bus, from the root over a PCI function, its vDPA device and its virtio device to
//! a network interface. It only describes; [`Bus`](crate::bus::Bus) is where devices meet drivers
//! and [`power`](crate::power) is what walks the tree in order.

mod bytes;
mod report;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use spin::Mutex;

pub use bytes::Bytes;
pub use report::{Inspect, NodeReport, QueueReport, Report};

use crate::power::Managed;

/// One device, bus bridge or service in the device tree.
///
/// A node keeps its parents alive; its children are listed for as long as somebody else holds them
/// and they have not been detached.
pub struct Node {
    name: String,
    parent: Mutex<Option<Arc<Self>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    children: Vec<Weak<Node>>,
    driver: Option<String>,
    inspector: Option<Arc<dyn Inspect>>,
    managed: Option<Weak<dyn Managed>>,
}

impl Node {
    /// The root of a tree.
    #[must_use]
    pub fn root(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            parent: Mutex::new(None),
            state: Mutex::default(),
        })
    }

    /// A new last child of `parent`.
    #[must_use]
    pub fn child(parent: &Arc<Self>, name: &str) -> Arc<Self> {
        let node = Arc::new(Self {
            name: name.to_owned(),
            parent: Mutex::new(Some(Arc::clone(parent))),
            state: Mutex::default(),
        });
        node.join(parent);
        node
    }

    /// Moves the node, and what is below it, to the end of another parent's list.
    pub fn reparent(self: &Arc<Self>, parent: &Arc<Self>) {
        self.detach();
        *self.parent.lock() = Some(Arc::clone(parent));
        self.join(parent);
    }

    fn join(self: &Arc<Self>, parent: &Self) {
        let mut state = parent.state.lock();
        state.children.retain(|child| child.strong_count() > 0);
        state.children.push(Arc::downgrade(self));
    }

    /// Takes the node, and what is below it, out of its parent's list. It keeps its own chain.
    pub fn detach(&self) {
        if let Some(parent) = self.parent() {
            let mut state = parent.state.lock();
            state
                .children
                .retain(|child| !core::ptr::eq(child.as_ptr(), self));
        }
    }

    /// The name, unique among the node's siblings by convention.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node above; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.parent.lock().clone()
    }

    /// The nodes below, as they are now, in the order of their creation.
    #[must_use]
    pub fn children(&self) -> Vec<Arc<Self>> {
        self.state
            .lock()
            .children
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// The way from the root to this node, both included.
    #[must_use]
    pub fn chain(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut chain: Vec<_> =
            core::iter::successors(Some(Arc::clone(self)), |node| node.parent()).collect();
        chain.reverse();
        chain
    }

    /// The chain as one line, without the root: `pci0000:00:04.0 -> vdpa0 -> virtio0 -> net0`.
    #[must_use]
    pub fn path(self: &Arc<Self>) -> String {
        let mut path = String::new();
        for node in self.chain().iter().filter(|node| node.parent().is_some()) {
            if !path.is_empty() {
                path.push_str(" -> ");
            }
            path.push_str(&node.name);
        }
        path
    }

    /// The name of the driver that has claimed the device.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        self.state.lock().driver.clone()
    }

    /// Says which driver has claimed the device; the bus does.
    pub(crate) fn set_driver(&self, driver: Option<&str>) {
        self.state.lock().driver = driver.map(ToOwned::to_owned);
    }

    /// Says whom to ask for a report. The inspector must not own the node.
    pub fn set_inspector(&self, inspector: Option<Arc<dyn Inspect>>) {
        self.state.lock().inspector = inspector;
    }

    /// What the device tells about itself, if it does.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        let inspector = self.state.lock().inspector.clone();
        inspector.map(|inspector| inspector.report())
    }

    /// The device and everything below it, as they are now. Parents own children nowhere, so there
    /// are no cycles.
    #[must_use]
    pub fn describe(&self) -> NodeReport {
        let Report {
            facts,
            features,
            queues,
        } = self.report().unwrap_or_default();
        NodeReport {
            name: self.name.clone(),
            driver: self.driver(),
            facts,
            features,
            queues,
            children: self
                .children()
                .iter()
                .map(|child| child.describe())
                .collect(),
        }
    }

    /// What the device's bus does for it when the power state of the system changes.
    pub(crate) fn managed(&self) -> Option<Arc<dyn Managed>> {
        self.state.lock().managed.as_ref().and_then(Weak::upgrade)
    }

    /// Says who takes part in power changes for this device: its bus, unless it is on one already.
    pub(crate) fn manage(&self, managed: Weak<dyn Managed>) -> bool {
        let mut state = self.state.lock();
        let free = state
            .managed
            .as_ref()
            .is_none_or(|bus| bus.strong_count() == 0);
        if free {
            state.managed = Some(managed);
        }
        free
    }

    /// The device has left its bus.
    pub(crate) fn unmanage(&self) {
        self.state.lock().managed = None;
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_chain_can_be_walked_from_an_interface_to_the_root() {
        let root = Node::root("root");
        let pci = Node::child(&root, "pci0000:00:04.0");
        let vdpa = Node::child(&pci, "vdpa0");
        let virtio = Node::child(&vdpa, "virtio0");
        let net = Node::child(&virtio, "net0");
        assert_eq!(net.path(), "pci0000:00:04.0 -> vdpa0 -> virtio0 -> net0");
        assert_eq!(root.path(), "");
        assert!(Arc::ptr_eq(&net.chain()[0], &root));
    }

    #[test]
    fn a_dropped_or_detached_child_is_no_longer_listed() {
        let root = Node::root("root");
        let first = Node::child(&root, "a");
        let second = Node::child(&root, "b");
        let third = Node::child(&root, "c");
        drop(first);
        second.detach();
        assert_eq!(
            root.children().iter().map(|n| n.name()).collect::<Vec<_>>(),
            ["c"]
        );
        assert_eq!(second.path(), "b");
        drop(third);
        assert!(root.children().is_empty());
    }

    #[test]
    fn a_node_that_hangs_elsewhere_takes_what_is_below_it_along() {
        let root = Node::root("root");
        let (old, new) = (Node::child(&root, "vdpa0"), Node::child(&root, "vdpa1"));
        let virtio = Node::child(&old, "virtio0");
        let net = Node::child(&virtio, "net0");
        virtio.reparent(&new);
        assert_eq!(net.path(), "vdpa1 -> virtio0 -> net0");
        assert!(old.children().is_empty());
        assert!(Arc::ptr_eq(&new.children()[0], &virtio));
    }

    #[test]
    fn a_description_has_everything_below_a_node() {
        let root = Node::root("root");
        let vdpa = Node::child(&root, "vdpa0");
        let _virtio = Node::child(&vdpa, "virtio0");
        vdpa.set_driver(Some("virtio_vdpa"));
        let report = root.describe();
        assert_eq!((report.name.as_str(), report.driver), ("root", None));
        let [vdpa] = &report.children[..] else {
            panic!("{:?}", report.children);
        };
        assert_eq!(vdpa.driver.as_deref(), Some("virtio_vdpa"));
        assert_eq!(vdpa.children[0].name, "virtio0");
    }

    #[test]
    fn a_report_comes_from_the_inspector() {
        struct Fixed;
        impl Inspect for Fixed {
            fn report(&self) -> Report {
                Report {
                    facts: vec![("colour", "blue".into())],
                    ..Report::default()
                }
            }
        }
        let node = Node::root("root");
        assert_eq!(node.report(), None);
        node.set_inspector(Some(Arc::new(Fixed)));
        assert_eq!(
            node.report().unwrap().facts,
            [("colour", "blue".to_owned())]
        );
    }
}
