//! A client that asks for whatever it likes, in any order, and writes what it likes into its rings
//! while its device serves them. A neighbour on another device must notice nothing, and nothing may
//! be left at the end.

use std::sync::Arc;

use vdpa::device::{Removal, VdpaDevice};
use vdpa_sim::Flavour;
use vhost_vdpa::{BackendFeatures, Request, VhostError, VhostHandle};
use virtq::{Doorbell, Event, SharedMemory};

use super::client::{OPTIONS, contents, start};
use super::input::Input;
use super::neighbour::Neighbour;
use super::requests;
use super::rings::{
    LEN, write_available, write_bytes, write_chain, write_descriptor, write_request,
};
use super::world::{Kind, World};

/// Runs one program.
///
/// # Panics
/// If somebody else notices, or something is left.
pub fn hostile_client(data: &[u8]) {
    let mut input = Input::new(data);
    let world = World::new();
    let mut neighbour = Neighbour::new(&world);
    let mut trial = Trial::new(&world, &mut input);
    while !input.is_empty() {
        trial.step(&mut input, &mut neighbour);
    }
    trial.close();
    neighbour.check(&world);
    trial.leave();
    neighbour.leave(&world);
    world.settle();
    assert!(world.platform.tasks().is_empty(), "a task is left");
    assert_eq!(world.platform.heap().outstanding(), 0, "memory is left");
    assert!(world.registry.names().is_empty());
}

struct Trial<'a> {
    world: &'a World,
    kind: Kind,
    flavour: Flavour,
    device: Arc<VdpaDevice>,
    handle: Option<VhostHandle>,
    memory: SharedMemory,
    /// Kicks, calls and errors in one.
    event: Arc<Event>,
    /// What it has been given to ring, some of it for devices that it does not have any more.
    doorbells: Vec<Doorbell>,
}

impl<'a> Trial<'a> {
    fn new(world: &'a World, input: &mut Input) -> Self {
        let kind = if input.flag() { Kind::Net } else { Kind::Blk };
        let flavour = if input.flag() {
            Flavour::Whole
        } else {
            Flavour::Incremental
        };
        let device = world.add(kind, flavour);
        let handle = world.open(&device, OPTIONS).expect("it is free");
        Self {
            world,
            kind,
            flavour,
            device,
            handle: Some(handle),
            memory: world.memory(LEN as usize),
            event: Arc::default(),
            doorbells: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input, neighbour: &mut Neighbour) {
        match input.below(24) {
            0..4 => self.ask(input),
            4..6 => self.change_memory(input),
            6 => self.bring_up(input),
            7..10 => write_descriptor(&self.memory, input),
            10..12 => write_available(&self.memory, input),
            12 => write_request(&self.memory, input),
            13 => write_bytes(&self.memory, input),
            14 | 15 => self.kick(input),
            16 => self.world.settle(),
            17 => neighbour.check(self.world),
            18 => self.leave_and_return(input),
            19 => self.lose_the_device(input),
            _ => {
                write_chain(&self.memory, input);
                self.kick(input);
            }
        }
    }

    fn ask(&self, input: &mut Input) {
        let request = requests::request(input, &self.event);
        if let Some(handle) = &self.handle {
            // Whatever the answer, it is one.
            let _ = self.world.platform.block_on(handle.request(request));
        }
    }

    fn change_memory(&self, input: &mut Input) {
        let message = requests::message(input, &self.memory);
        if let Some(handle) = &self.handle {
            let _ = handle.message(message);
            if input.flag() {
                let _ = self.world.platform.block_on(handle.settle(0));
            }
        }
    }

    /// All that it takes to have the queues served, so that the rest is not in vain.
    fn bring_up(&mut self, input: &mut Input) {
        let features = requests::features(input);
        let event = Arc::clone(&self.event);
        if let Some(handle) = &self.handle {
            let _ = handle.set_owner();
            let _ = handle.message(requests::whole(&self.memory));
            let _ = handle.set_backend_features(
                BackendFeatures::IOTLB_BATCH
                    | BackendFeatures::IOTLB_ASID
                    | BackendFeatures::IOTLB_PERSIST,
            );
            let started = start(handle, features, &event);
            let _ = self.world.platform.block_on(started);
            self.doorbells.truncate(8);
            let doorbells = (0..3).filter_map(|queue| handle.doorbell(queue).ok());
            self.doorbells.extend(doorbells);
        }
    }

    fn kick(&self, input: &mut Input) {
        self.event.raise();
        if !self.doorbells.is_empty() {
            let doorbell = &self.doorbells[input.below(self.doorbells.len())];
            doorbell.ring(input.u16());
        }
        self.world.settle();
    }

    /// Closes, drops or stays, and opens again.
    fn leave_and_return(&mut self, input: &mut Input) {
        match input.below(3) {
            0 => self.close(),
            1 => {
                self.handle = None;
                self.world.settle();
                self.expect_peace();
            }
            _ => (),
        }
        let opened = self.world.open(&self.device, OPTIONS);
        match (&self.handle, opened) {
            (Some(_), Err(VhostError::Busy | VhostError::NotFound)) => (),
            (Some(handle), Ok(_)) => assert!(handle.is_hung_up(), "two clients have it"),
            (None, Ok(handle)) => self.handle = Some(handle),
            (_, Err(error)) => panic!("it cannot be opened: {error}"),
        }
    }

    /// The device is taken away under the client, and another one comes.
    fn lose_the_device(&mut self, input: &mut Input) {
        if input.below(4) > 0 {
            return;
        }
        let removal = if input.flag() {
            // SAFETY: the device is a simulation, whose workers the bus ends before it goes.
            unsafe { Removal::surprise() }
        } else {
            Removal::Orderly
        };
        self.world.remove(&self.device, removal);
        if let Some(handle) = self.handle.take() {
            assert!(handle.is_hung_up());
            let late = handle.request(Request::GetStatus);
            let late = self.world.platform.block_on(late);
            assert_eq!(late, Err(VhostError::HungUp));
            let late = handle.message(requests::whole(&self.memory));
            assert_eq!(late, Err(VhostError::HungUp));
        }
        self.expect_peace();
        self.device = self.world.add(self.kind, self.flavour);
    }

    fn close(&mut self) {
        if let Some(handle) = self.handle.take() {
            let closed = self.world.platform.block_on(handle.close());
            assert_eq!(closed, Ok(()), "a simulator resets");
            self.expect_peace();
        }
    }

    /// Nobody touches the client's memory any more, whatever it rings.
    fn expect_peace(&self) {
        let before = contents(&self.memory);
        for doorbell in &self.doorbells {
            doorbell.ring(0);
        }
        self.event.raise();
        self.world.settle();
        assert!(
            before == contents(&self.memory),
            "memory is written after the end"
        );
    }

    /// Takes the device away. The client has closed it.
    fn leave(self) {
        assert_eq!(self.device.owner(), None, "the device belongs to nobody");
        self.world.remove(&self.device, Removal::Orderly);
        assert_eq!(Arc::strong_count(&self.event), 1, "an event is kept");
    }
}
