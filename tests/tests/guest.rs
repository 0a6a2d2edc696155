//! Runs the guest test kernel on every machine of the matrix and reports each of its tests by name
//! and machine.
//!
//! The names come from a first boot that lists them. Each machine is booted once, when the first of
//! its tests is asked for, and gives the verdicts of all.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use qemu::build::Profile;
use qemu::device::{Disk, Net, NetBackend, Switch, Transport};
use qemu::guest::Guest;
use qemu::machine;
use tests::disks::TestDisks;
use tests::kernels;
use tests::matrix::{Configuration, Parent, configurations};
use tests::run::{boot, test_names};
use tests::transcript::{End, Judgement, Verdict, excerpt};

/// A machine that has not ended by then hangs. A busy host of two cores needs a tenth of it.
const PATIENCE: Duration = Duration::from_secs(180);

/// The exit code of a kernel that panicked.
const PANICKED: u8 = 101;

/// Forbidden things, and what the console must say after them.
const FAULTS: [(&str, &str); 6] = [
    ("write_to_code", "page fault"),
    ("write_to_constant", "page fault"),
    ("run_data", "page fault"),
    ("read_null", "page fault"),
    ("overflow_stack", "stack"),
    ("panic", "this panic is wanted"),
];

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    // A machine often waits for a timer: with one more than there are processors, none is idle.
    let processors = thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(processors + 1);
    let kernels = Arc::new(Kernels::build()?);
    let names = kernels.names()?;
    let machines: Vec<Arc<Machine>> = configurations()
        .into_iter()
        .map(|configuration| Machine::new(configuration, &kernels, &names))
        .collect();
    // The whole runs first: so machines, not tests, are what runs side by side.
    let mut trials: Vec<Trial> = machines.iter().map(Machine::whole).collect();
    trials.extend(faults(&kernels));
    trials.extend(loops(&kernels));
    for machine in &machines {
        trials.extend(machine.names.iter().map(|name| machine.test(name)));
    }
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

/// The guest test kernel, built in every way.
struct Kernels {
    by_profile: HashMap<Profile, std::path::PathBuf>,
}

impl Kernels {
    fn build() -> Result<Self> {
        let build = |profile| {
            let kernel = kernels::build("guest-tests", profile).map_err(|error| anyhow!(error))?;
            Ok((profile, kernel))
        };
        // Each spends half of its time on one processor.
        let built = thread::scope(|scope| {
            let debug = scope.spawn(|| build(Profile::Test));
            [
                build(Profile::Compact),
                debug.join().expect("a build does not panic"),
            ]
        });
        Ok(Self {
            by_profile: built.into_iter().collect::<Result<_>>()?,
        })
    }

    fn guest(&self, profile: Profile, append: &str) -> Guest {
        Guest {
            append: append.into(),
            ..Guest::new(&self.by_profile[&profile])
        }
    }

    /// The names of all tests, which must not depend on the profile.
    fn names(&self) -> Result<Vec<String>> {
        let list = |profile| test_names(&self.by_profile[&profile]).map_err(|error| anyhow!(error));
        let names =
            list(Profile::Compact).context("the guest test kernel does not list its tests")?;
        anyhow::ensure!(
            names == list(Profile::Test)?,
            "the profiles have different tests"
        );
        Ok(names)
    }
}

/// One machine of the matrix, booted when it is first asked.
struct Machine {
    configuration: Configuration,
    kernels: Arc<Kernels>,
    names: Vec<String>,
    judgement: OnceLock<Result<Judgement, String>>,
}

impl Machine {
    fn new(configuration: Configuration, kernels: &Arc<Kernels>, names: &[String]) -> Arc<Self> {
        let kernels = Arc::clone(kernels);
        let runs = |name: &&String| configuration.runs(name);
        let names = names.iter().filter(runs).cloned().collect();
        Arc::new(Self {
            configuration,
            kernels,
            names,
            judgement: OnceLock::new(),
        })
    }

    /// The trial for the run as a whole.
    fn whole(self: &Arc<Self>) -> Trial {
        let machine = Arc::clone(self);
        Trial::test(format!("{}::whole_run", self.configuration), move || {
            machine.judgement()?.run().map_err(Failed::from)
        })
    }

    /// The trial for one test.
    fn test(self: &Arc<Self>, name: &str) -> Trial {
        let (machine, name) = (Arc::clone(self), name.to_string());
        Trial::ignorable_test(
            format!("{}::{name}", self.configuration),
            move || match machine.judgement()?.verdict(&name) {
                Verdict::Passed => Ok(Completion::Completed),
                Verdict::Ignored(reason) => Ok(Completion::ignored_with(reason)),
                Verdict::Failed(reason) => Err(reason.into()),
            },
        )
    }

    fn judgement(&self) -> Result<&Judgement, Failed> {
        let judgement = self
            .judgement
            .get_or_init(|| self.run().map_err(|e| format!("{e:#}")));
        judgement.as_ref().map_err(Failed::from)
    }

    /// Boots the machine and judges its run and what it left on its disks.
    fn run(&self) -> Result<Judgement> {
        let disks = TestDisks::new().context("the test disks cannot be made")?;
        let virtio = self.configuration.virtio();
        let net = Net::new(NetBackend::User {
            forwards: Vec::new(),
        });
        let guest = Guest {
            machine: self.configuration.machine,
            iommu: self.configuration.iommu,
            extra: self.configuration.extra().iter().map(Into::into).collect(),
            nets: vec![Net { virtio, ..net }],
            disks: disks
                .devices(virtio)
                .into_iter()
                .map(|disk| Disk {
                    queues: self.configuration.disk_queues,
                    queue_size: self.configuration.disk_queue_size,
                    ..disk
                })
                .collect(),
            ..self
                .kernels
                .guest(self.configuration.profile, &self.configuration.append())
        };
        let run = boot(&guest, PATIENCE)?;
        let mut judgement = Judgement::of(&self.names, &run.console, &run.end);
        if let Err(fault) = disks.compare() {
            judgement.add_fault(fault);
        }
        Ok(judgement)
    }
}

/// The conformance suite's data path over QEMU's network card, whose link leads back to itself.
fn loops(kernels: &Arc<Kernels>) -> Vec<Trial> {
    const TEST: &str = "conformance::qemu_network_card_conforms";
    let trial = |parent| {
        let (kernels, configuration) = (Arc::clone(kernels), looped(parent));
        Trial::test(format!("{configuration}/loopback::{TEST}"), move || {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("link");
            let path = path.display();
            let words = format!(
                "-netdev dgram,id=loop,local.type=unix,local.path={path},remote.type=unix,remote.path={path} \
                 -device virtio-net-pci,netdev=loop,romfile={}",
                configuration.virtio().arguments(Transport::Pci)
            );
            let append = format!("{} network=loopback only={TEST}", configuration.append());
            let guest = Guest {
                machine: configuration.machine,
                extra: words.split_whitespace().map(Into::into).collect(),
                ..kernels.guest(configuration.profile, &append)
            };
            let run = boot(&guest, PATIENCE)?;
            let judgement = Judgement::of(&[TEST.into()], &run.console, &run.end);
            match judgement.verdict(TEST) {
                Verdict::Passed => judgement.run().map_err(Failed::from),
                Verdict::Ignored(reason) | Verdict::Failed(reason) => Err(reason.into()),
            }
        })
    };
    [Parent::VpVdpa, Parent::Ifcvf].map(trial).into()
}

/// A machine whose card offers packed rings, which the suite takes beside split ones.
fn looped(parent: Parent) -> Configuration {
    Configuration {
        packed: Switch::On,
        parent,
        ..Configuration::on(machine::Machine::Q35)
    }
}

/// The trials in which the guest does something forbidden, optimized and not.
fn faults(kernels: &Arc<Kernels>) -> Vec<Trial> {
    let every = FAULTS
        .iter()
        .flat_map(|fault| [Profile::Compact, Profile::Test].map(|profile| (fault, profile)));
    let trial = |((fault, message), profile): (&(&'static str, &'static str), Profile)| {
        let (kernels, fault, message) = (Arc::clone(kernels), *fault, *message);
        Trial::test(format!("fault/{}::{fault}", profile.name()), move || {
            let run = boot(&kernels.guest(profile, &format!("fault={fault}")), PATIENCE)?;
            let said = run.console.iter().any(|line| line.contains(message));
            if run.end == End::Code(PANICKED) && said {
                return Ok(());
            }
            let console = excerpt(&run.console);
            Err(format!(
                "it ended with {:?}, and must say {message:?}{console}",
                run.end
            )
            .into())
        })
    };
    every.map(trial).collect()
}
