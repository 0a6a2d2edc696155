//! What the interface under the stack and the tasks that configure the stack tell each other.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use embassy_net::driver::LinkState;
use spin::Mutex;
use virtq::Event;

use crate::pure::on_link::StandIn;

/// The most frames that wait to be sent.
const OUTBOX_MAX: usize = 8;
/// The most messages of neighbors that wait to be read. Who sends more of them at once is not
/// heard.
const NEIGHBOR_MESSAGES_MAX: usize = 16;

/// An address of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    /// The address.
    pub(super) address: Ipv4Addr,
    /// The length of its prefix in bits.
    pub(super) prefix: u8,
    /// Who stands in for the gateway.
    pub(super) stand_in: Option<StandIn>,
}

/// What one side tells the other.
#[derive(Debug, Default)]
pub(super) struct Wire {
    state: Mutex<State>,
    /// There is news for the interface.
    pub(super) for_interface: Event,
    /// There is news for the task that configures IPv4.
    pub(super) for_task: Event,
    /// There is news for the task that configures IPv6.
    pub(super) for_ipv6: Event,
}

#[derive(Debug, Default)]
struct State {
    name: String,
    mac: [u8; 6],
    link_is_up: bool,
    /// How often the interface has become another one.
    exchanges: usize,
    assigned: Option<Assigned>,
    /// Who else uses the address.
    conflict: Option<[u8; 6]>,
    outbox: VecDeque<Vec<u8>>,
    ipv6_is_open: bool,
    neighbor_messages: VecDeque<Vec<u8>>,
}

/// What the interface is.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) name: String,
    pub(super) mac: [u8; 6],
    pub(super) link_is_up: bool,
    pub(super) exchanges: usize,
}

/// What the task looks at.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) mac: [u8; 6],
    pub(super) link_is_up: bool,
    pub(super) exchanges: usize,
    /// Who else uses the address, told once.
    pub(super) conflict: Option<[u8; 6]>,
}

impl Wire {
    /// The interface is this one from now on, and has no address.
    pub(super) fn set_interface(&self, name: &str, mac: [u8; 6]) {
        let exchanges = self.state.lock().exchanges + 1;
        *self.state.lock() = State {
            name: name.into(),
            mac,
            exchanges,
            ..State::default()
        };
        self.for_task.raise();
        self.for_ipv6.raise();
    }

    /// The state of the link, which may be as before.
    pub(super) fn set_link(&self, state: LinkState) {
        let is_up = state == LinkState::Up;
        let mut shared = self.state.lock();
        if shared.link_is_up != is_up {
            shared.link_is_up = is_up;
            self.for_task.raise();
            self.for_ipv6.raise();
        }
    }

    /// Another host uses the address.
    pub(super) fn report_conflict(&self, mac: [u8; 6]) {
        self.state.lock().conflict = Some(mac);
        self.for_task.raise();
    }

    pub(super) fn seen(&self) -> Seen {
        let mut state = self.state.lock();
        Seen {
            conflict: state.conflict.take(),
            name: state.name.clone(),
            mac: state.mac,
            link_is_up: state.link_is_up,
            exchanges: state.exchanges,
        }
    }

    pub(super) fn look(&self) -> Look {
        let state = self.state.lock();
        Look {
            name: state.name.clone(),
            mac: state.mac,
            link_is_up: state.link_is_up,
            exchanges: state.exchanges,
        }
    }

    /// A message of neighbor discovery has come.
    pub(super) fn hear_neighbor(&self, frame: &[u8]) {
        let messages = &mut self.state.lock().neighbor_messages;
        if messages.len() < NEIGHBOR_MESSAGES_MAX {
            messages.push_back(frame.into());
            self.for_ipv6.raise();
        }
    }

    pub(super) fn next_neighbor_message(&self) -> Option<Vec<u8>> {
        self.state.lock().neighbor_messages.pop_front()
    }

    /// Whether the stack may use IPv6 from now on.
    pub(super) fn open_ipv6(&self, is_open: bool) {
        self.state.lock().ipv6_is_open = is_open;
        self.for_interface.raise();
    }

    pub(super) fn ipv6_is_open(&self) -> bool {
        self.state.lock().ipv6_is_open
    }

    /// The stack has this address from now on, or none.
    pub(super) fn assign(&self, assigned: Option<Assigned>) {
        self.state.lock().assigned = assigned;
        self.for_interface.raise();
    }

    pub(super) fn assigned(&self) -> Option<Assigned> {
        self.state.lock().assigned
    }

    /// Sends a frame. It is lost if too many wait.
    pub(super) fn send(&self, frame: &[u8]) {
        let mut state = self.state.lock();
        if state.outbox.len() < OUTBOX_MAX {
            state.outbox.push_back(frame.into());
            self.for_interface.raise();
        }
    }

    pub(super) fn has_frames(&self) -> bool {
        !self.state.lock().outbox.is_empty()
    }

    pub(super) fn next_frame(&self) -> Option<Vec<u8>> {
        self.state.lock().outbox.pop_front()
    }
}
