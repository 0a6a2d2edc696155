//! A packet filter that a task serves, before a wire that leads back: put through the checks that
//! every parent driver passes, by frames that its rules let through.
//!
//! Run it on the host: `cargo run -p vdpa-vduse --example packet_filter`.

extern crate alloc;

mod filter;
mod rules;

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;

use vdpa::conformance::{Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::testing::FakePlatform;
use vdpa::{Platform, VdpaOps};
use vdpa_vduse::{Control, Options, serve};

use filter::{Below, FRAME_MAX, PacketFilter};
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

/// A machine with the filter.
struct Machine {
    platform: Arc<FakePlatform>,
    control: Arc<Control>,
}

impl Subject for Machine {
    fn name(&self) -> &str {
        "a packet filter"
    }

    fn device_type(&self) -> u32 {
        1
    }

    fn abilities(&self) -> Abilities {
        Abilities::all() - Abilities::DIRTY_LOG
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        let attached = self.control.attach(NAME).map_err(|_| OpError::Invalid);
        Box::pin(std::future::ready(attached))
    }

    fn service(&self) -> Service {
        Service::NetLoopback
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let platform = FakePlatform::new();
    let kernel: Arc<dyn Platform> = platform.clone();
    let control = Control::new(&kernel);
    let config = filter::config(NAME, [2, 0, 0, 0, 0, 1]);
    control.create(&config, Options::default())?;
    let task = control.open(NAME)?;
    filter::set_up(&task)?;
    let running = async move {
        let mut filter = PacketFilter::new(RULES, Loop::default());
        let end = serve(&task, &mut filter).await;
        eprintln!("the task ends: {end}");
    };
    platform.spawn("packet filter", Box::pin(running));

    let machine = Machine {
        platform: Arc::clone(&platform),
        control,
    };
    let report = platform.block_on(run(&machine));
    println!("{report}");
    if report.is_passed() {
        Ok(())
    } else {
        Err("the device does not conform".into())
    }
}
