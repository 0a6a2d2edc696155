//! A packet filter that a task serves, before a wire that leads back: put through the checks that
//! every parent driver passes, by frames that its rules let through.
//!
//! Run it on the host: `cargo run -p vdpa-vduse --example packet_filter`.

extern crate alloc;

mod filter;
#[path = "../common/machine.rs"]
mod machine;
mod rules;

use std::collections::VecDeque;
use std::error::Error;

use vdpa::conformance::Service;
use vdpa_vduse::Options;

use filter::{Below, FRAME_MAX, PacketFilter};
use machine::{Checked, Machine};
use rules::{Rule, Rules, Verdict};

const NAME: &str = "filter";
/// The type of the frames that the checks send.
const EXPERIMENTS: u16 = 0x88b5;

const RULES: Rules = Rules(&[
    Rule {
        ethertype: Some(EXPERIMENTS),
        ..Rule::any(Verdict::Accept)
    },
    Rule::any(Verdict::Drop),
]);

/// A wire that leads back.
#[derive(Default)]
struct Loop(VecDeque<Vec<u8>>);

impl Below for Loop {
    fn receive(&mut self, frame: &mut [u8; FRAME_MAX]) -> Option<usize> {
        let bytes = self.0.pop_front()?;
        frame[..bytes.len()].copy_from_slice(&bytes);
        Some(bytes.len())
    }

    fn send(&mut self, frame: &[u8]) {
        self.0.push_back(frame.into());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(Checked {
        name: NAME,
        device_type: virtio::Id::Net,
        service: Service::NetLoopback,
        requests: None,
    });
    let control = &machine.control;
    let config = filter::config(NAME, [2, 0, 0, 0, 0, 1]);
    control.create(&config, Options::default())?;
    let task = control.open(NAME)?;
    filter::set_up(&task)?;
    machine.spawn(task, PacketFilter::new(RULES, Loop::default()));
    machine.check()
}
