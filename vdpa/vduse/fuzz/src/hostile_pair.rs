//! A hostile task behind a hostile client of vhost, which asks for whatever it likes and writes
//! whatever it likes into its rings. Neither may stop the kernel, or reach memory that was taken
//! away, and nothing may be left at the end.

use std::sync::Arc;

use vdpa::device::{Removal, VdpaId};
use vhost_vdpa::{VhostHandle, VhostRegistry, VhostVdpa};
use virtq::{DmaAllocator, Doorbell, Event, SharedMemory};

use super::client::{OPTIONS, contents, start};
use super::input::Input;
use super::requests;
use super::rings::{
    LEN, write_available, write_bytes, write_chain, write_descriptor, write_request,
};
use super::task::HostileTask;
use super::world::World;

const QUEUES: u16 = 3;
const SPACES: u16 = 2;
/// The most messages that one step of the client takes, and a few to spare.
const MESSAGES: u32 = 16;

/// Runs one program.
///
/// # Panics
/// If the kernel is harmed, or something is left.
pub fn hostile_pair(data: &[u8]) {
    let mut input = Input::new(data);
    let world = World::new();
    let registry = VhostRegistry::new();
    let driver = VhostVdpa::new(Arc::clone(&registry), [VdpaId::Any]);
    let added = world
        .platform
        .block_on(world.bus.add_driver(Arc::new(driver)));
    added.expect("the only driver");
    let task = world.create(&mut input, QUEUES, SPACES);
    let device = world.attach();
    let name = registry.names().pop().expect("it is there");
    let open = registry.open(&name, OPTIONS);
    let handle = world.platform.block_on(open).expect("it is free");
    let dma = Arc::clone(world.platform.heap()) as Arc<dyn DmaAllocator>;
    let mut trial = Trial {
        task: HostileTask::new(&world, task),
        world: &world,
        handle: Some(handle),
        memory: SharedMemory::new(&dma, LEN as usize).expect("a host has memory"),
        event: Arc::default(),
        doorbells: Vec::new(),
    };
    trial.bring_up(&mut input);
    while !input.is_empty() {
        trial.step(&mut input);
    }
    trial.close();
    let removing = world.bus.unregister(&device, Removal::Orderly);
    world.platform.block_on(removing);
    drop((trial, device));
    world.check_nothing_is_left();
    assert!(registry.names().is_empty());
}

struct Trial<'w> {
    world: &'w World,
    task: HostileTask<'w>,
    handle: Option<VhostHandle>,
    memory: SharedMemory,
    /// Kicks, calls and errors in one.
    event: Arc<Event>,
    doorbells: Vec<Doorbell>,
}

impl Trial<'_> {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(32) {
            0..5 => {
                let request = requests::request(input, &self.event);
                self.ask(input, async |handle| _ = handle.request(request).await);
            }
            5 => {
                let message = requests::message(input, &self.memory);
                let _ = self.handle().message(message);
                self.ask(input, async |handle| _ = handle.settle(0).await);
            }
            6 => self.bring_up(input),
            7 | 8 => write_descriptor(&self.memory, input),
            9 => write_available(&self.memory, input),
            10 => write_request(&self.memory, input),
            11 => write_bytes(&self.memory, input),
            12..17 => write_chain(&self.memory, input),
            17 => self.kick(input),
            _ => self.task.act(input, &mut ()),
        }
    }

    /// The client asks for something, while the task answers.
    fn ask(&mut self, input: &mut Input<'_>, act: impl AsyncFnOnce(&VhostHandle)) {
        let handle = self.handle.as_ref().expect("until it is closed");
        self.task.serve(act(handle), MESSAGES, input, &mut ());
    }

    /// All that it takes to have the queues served, so that the rest is not in vain.
    fn bring_up(&mut self, input: &mut Input<'_>) {
        let features = requests::features(input);
        let event = Arc::clone(&self.event);
        let _ = self.handle().set_owner();
        let _ = self.handle().message(requests::whole(&self.memory));
        self.ask(input, async |handle| {
            let _ = start(handle, features, &event).await;
        });
        let doorbells = (0..QUEUES).filter_map(|queue| self.handle().doorbell(queue).ok());
        self.doorbells = doorbells.collect();
    }

    fn handle(&self) -> &VhostHandle {
        self.handle.as_ref().expect("until it is closed")
    }

    fn kick(&self, input: &mut Input<'_>) {
        self.event.raise();
        if !self.doorbells.is_empty() {
            self.doorbells[input.below(self.doorbells.len())].ring(input.u16());
        }
        self.world.platform.run_until_stalled();
    }

    /// Closes; the task has nothing of the client's memory any more.
    fn close(&mut self) {
        let closing = self.handle.take().expect("until it is closed").close();
        let mut honest = Input::new(&[]);
        let closed = self.task.serve(closing, MESSAGES, &mut honest, &mut ());
        closed.expect("a device of a task resets");
        let before = contents(&self.memory);
        let acts: Vec<u8> = (0..=255).collect();
        let mut acts = Input::new(&acts);
        while !acts.is_empty() {
            self.task.act(&mut acts, &mut ());
        }
        self.task.die(&mut ());
        assert!(
            before == contents(&self.memory),
            "memory is written after the end"
        );
    }
}
