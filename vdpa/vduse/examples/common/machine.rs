//! A machine in which a task implements a device, and the checks that every parent driver passes.

use std::error::Error;
use std::sync::Arc;

use vdpa::conformance::{Request, Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::testing::FakePlatform;
use vdpa::{Platform, VdpaOps};
use vdpa_vduse::{Control, Task, TaskDevice, serve};

/// What is checked, and where.
pub struct Machine {
    platform: Arc<FakePlatform>,
    pub control: Arc<Control>,
    device: Checked,
}

/// A device to check.
pub struct Checked {
    /// Its name, by which it is created.
    pub name: &'static str,
    pub device_type: virtio::Id,
    pub service: Service,
    /// Requests of its type and what their answers are, for [`Service::Requests`].
    pub requests: Option<Requests>,
}

/// As [`Subject::request`] and [`Subject::judge`] are.
pub struct Requests {
    pub request: fn(number: u8) -> Request,
    pub judge: fn(number: u8, answer: &[u8]) -> Result<(), String>,
}

impl Machine {
    pub fn new(device: Checked) -> Self {
        let platform = FakePlatform::new();
        let kernel: Arc<dyn Platform> = platform.clone();
        Self {
            control: Control::new(&kernel),
            platform,
            device,
        }
    }

    /// Lets the task run.
    pub fn spawn(&self, task: Task, mut device: impl TaskDevice + 'static) {
        let running = async move {
            let end = serve(&task, &mut device).await;
            eprintln!("the task ends: {end}");
        };
        self.platform.spawn(self.device.name, Box::pin(running));
    }

    /// Checks the device, and prints what was found.
    pub fn check(&self) -> Result<(), Box<dyn Error>> {
        let report = self.platform.block_on(run(self));
        println!("{report}");
        if report.is_passed() {
            Ok(())
        } else {
            Err("the device does not conform".into())
        }
    }
}

impl Subject for Machine {
    fn name(&self) -> &str {
        self.device.name
    }

    fn device_type(&self) -> u32 {
        u8::from(self.device.device_type).into()
    }

    fn abilities(&self) -> Abilities {
        Abilities::all() - Abilities::DIRTY_LOG
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        let attached = self.control.attach(self.device.name);
        Box::pin(std::future::ready(attached.map_err(|_| OpError::Invalid)))
    }

    fn service(&self) -> Service {
        self.device.service
    }

    fn request(&self, number: u8) -> Request {
        let requests = self.device.requests.as_ref();
        requests.map_or_else(Request::default, |requests| (requests.request)(number))
    }

    fn judge(&self, number: u8, answer: &[u8]) -> Result<(), String> {
        let requests = self.device.requests.as_ref();
        requests.map_or(Ok(()), |requests| (requests.judge)(number, answer))
    }
}
