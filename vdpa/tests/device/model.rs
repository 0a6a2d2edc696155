//! What a device may be asked for and when, written down a second time: VIRTIO 1.2, sections 2.1,
//! 2.2, 2.6.1 and 3.1.1, and the rules of suspension, of queue state and of groups.

use vdpa::ops::{Abilities, OpError, QueueState};

pub const ACKNOWLEDGE: u8 = 1;
pub const DRIVER: u8 = 2;
pub const DRIVER_OK: u8 = 4;
pub const FEATURES_OK: u8 = 8;
pub const FAILED: u8 = 128;

pub const VERSION_1: u128 = 1 << 32;
pub const RING_PACKED: u128 = 1 << 34;
/// Those, MAC and STATUS: what the device offers.
pub const OFFERED: u128 = VERSION_1 | RING_PACKED | 1 << 5 | 1 << 16 | 1 << 70;

pub const GROUPS: u16 = 2;
pub const SPACES: u16 = 3;
pub const SIZE_MIN: u16 = 2;
pub const SIZE_MAX: u16 = 64;

#[derive(Clone, Debug)]
pub enum Op {
    SetStatus(u8),
    SetFeatures(u128),
    SetSize(u16, u16),
    SetAddress(u16),
    SetState(u16, QueueState),
    State(u16),
    SetCallback(u16),
    Start(u16),
    Stop(u16),
    SetGroup(u16, u16),
    Statistics(u16),
    Suspend,
    Resume,
    Reset,
}

/// What comes of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub result: Result<Option<QueueState>, OpError>,
    /// What the parent is asked for, if it is.
    pub log: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Motion {
    #[default]
    Running,
    Suspended,
    /// It did not answer when it was told to change.
    Unclear,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub abilities: Abilities,
    /// The next operation that reaches the parent fails.
    pub fault: bool,
    pub status: u8,
    pub features: u128,
    pub motion: Motion,
    pub spaces: [u16; GROUPS as usize],
    pub queues: [Queue; 2],
    lost: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Queue {
    pub ready: bool,
    size: u16,
    addressed: bool,
    /// Set since the last reset or stop.
    set: Option<QueueState>,
    /// Where it stands.
    at: Option<QueueState>,
    stopped: bool,
}

type Answer = Result<Option<QueueState>, OpError>;

impl Model {
    pub fn new(abilities: Abilities) -> Self {
        Self {
            abilities,
            fault: false,
            status: 0,
            features: 0,
            motion: Motion::Running,
            spaces: [0; GROUPS as usize],
            queues: Default::default(),
            lost: false,
        }
    }

    /// What the rules say about the operation; if they allow it, it happens.
    pub fn apply(&mut self, op: &Op) -> Outcome {
        let log = match self.allow(op) {
            Ok(log) => log,
            Err(error) => {
                let result = Err(error);
                return Outcome { result, log: None };
            }
        };
        // A callback is a note that the parent takes, which cannot fail.
        let fallible = log.is_some() && !matches!(op, Op::SetCallback(_));
        let failed = fallible && std::mem::take(&mut self.fault);
        let result = if failed {
            self.fail(op);
            Err(OpError::Timeout)
        } else {
            self.happen(op)
        };
        Outcome { result, log }
    }

    /// What reaches the parent, if anything has to.
    fn allow(&self, op: &Op) -> Result<Option<String>, OpError> {
        Ok(Some(match *op {
            Op::Reset => String::from("reset"),
            Op::SetStatus(status) => {
                let settable = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;
                if status == 0 || status & !settable != 0 || self.status & !status != 0 {
                    return Err(OpError::Invalid);
                }
                let early = status & DRIVER_OK != 0 && self.status & FEATURES_OK == 0;
                only_if(!early && !self.lost)?;
                format!("set_status({status:#x})")
            }
            Op::SetFeatures(features) => {
                only_if(self.status & FEATURES_OK == 0 && !self.lost)?;
                valid_if(features & !OFFERED == 0)?;
                String::from("set_driver_features")
            }
            Op::SetSize(queue, size) => {
                self.may_set_up(queue)?;
                valid_if((SIZE_MIN..=SIZE_MAX).contains(&size))?;
                valid_if(self.is_packed() || size.count_ones() == 1)?;
                format!("set_queue_size({queue}, {size})")
            }
            Op::SetAddress(queue) => {
                self.may_move(queue)?;
                format!("set_queue_address({queue})")
            }
            Op::SetState(queue, state) => {
                let setup = self.may_move(queue)?;
                valid_if(matches!(state, QueueState::Packed { .. }) == self.is_packed())?;
                valid_if(setup.size == 0 || place(state) < u32::from(setup.size))?;
                format!("set_queue_state({queue})")
            }
            Op::State(queue) => {
                let setup = self.queue(queue)?;
                only_if(!self.lost && (!setup.ready || self.motion == Motion::Suspended))?;
                format!("queue_state({queue})")
            }
            Op::SetCallback(queue) => {
                self.may_set_up(queue)?;
                format!("clear_queue_callback({queue})")
            }
            Op::Start(queue) => {
                let setup = self.may_set_up(queue)?;
                only_if(setup.size > 0 && setup.addressed)?;
                let inside = setup
                    .set
                    .is_none_or(|state| place(state) < u32::from(setup.size));
                valid_if(inside)?;
                format!("set_queue_ready({queue}, true)")
            }
            Op::Stop(queue) => {
                let setup = self.queue(queue)?;
                only_if(!self.lost)?;
                if !setup.ready {
                    return Ok(None);
                }
                format!("set_queue_ready({queue}, false)")
            }
            Op::SetGroup(group, space) => {
                if group >= GROUPS || space >= SPACES {
                    return Err(OpError::OutOfRange);
                }
                only_if(self.status & DRIVER_OK == 0 && !self.lost)?;
                format!("set_group_address_space({group}, {space})")
            }
            Op::Statistics(queue) => {
                self.queue(queue)?;
                format!("queue_statistics({queue})")
            }
            Op::Suspend => {
                self.may_change(Abilities::SUSPEND)?;
                if self.motion == Motion::Suspended {
                    return Ok(None);
                }
                String::from("suspend")
            }
            Op::Resume => {
                self.may_change(Abilities::RESUME)?;
                if self.motion == Motion::Running {
                    return Ok(None);
                }
                String::from("resume")
            }
        }))
    }

    fn happen(&mut self, op: &Op) -> Answer {
        let start = self.start();
        let tells_state = self.abilities.contains(Abilities::QUEUE_STATE);
        match *op {
            Op::Reset => *self = Self::new(self.abilities),
            Op::SetStatus(status) => self.status = status,
            Op::SetFeatures(features) => self.features = features,
            Op::SetSize(queue, size) => self.edit(queue).size = size,
            Op::SetAddress(queue) => self.edit(queue).addressed = true,
            Op::SetState(_, state) if !tells_state && state != start => {
                return Err(OpError::Unsupported);
            }
            Op::SetState(queue, state) => {
                let queue = self.edit(queue);
                (queue.set, queue.at) = (Some(state), Some(state));
            }
            Op::State(_) if !tells_state => return Err(OpError::Unsupported),
            Op::State(queue) => return Ok(Some(self.queue(queue)?.at.unwrap_or(start))),
            Op::Start(queue) => self.edit(queue).ready = true,
            Op::Stop(queue) => {
                let queue = self.edit(queue);
                if queue.ready {
                    (queue.ready, queue.stopped, queue.set) = (false, true, None);
                }
            }
            Op::SetGroup(group, space) => self.spaces[usize::from(group)] = space,
            Op::Suspend => self.motion = Motion::Suspended,
            Op::Resume => self.motion = Motion::Running,
            Op::SetCallback(_) | Op::Statistics(_) => {}
        }
        Ok(None)
    }

    /// The parent did not do it.
    fn fail(&mut self, op: &Op) {
        match op {
            Op::Reset => self.lost = true,
            Op::Suspend | Op::Resume => self.motion = Motion::Unclear,
            _ => {}
        }
    }

    fn queue(&self, queue: u16) -> Result<&Queue, OpError> {
        self.queues
            .get(usize::from(queue))
            .ok_or(OpError::OutOfRange)
    }

    fn edit(&mut self, queue: u16) -> &mut Queue {
        &mut self.queues[usize::from(queue)]
    }

    fn agreed(&self) -> bool {
        self.status & FEATURES_OK != 0 && self.status & FAILED == 0 && !self.lost
    }

    fn may_set_up(&self, queue: u16) -> Result<&Queue, OpError> {
        let setup = self.queue(queue)?;
        let any_time = self.abilities.contains(Abilities::ENABLE_AFTER_DRIVER_OK) || setup.stopped;
        let running = self.motion == Motion::Running;
        let in_time = self.status & DRIVER_OK == 0 || (any_time && running);
        only_if(self.agreed() && in_time && !setup.ready)?;
        Ok(setup)
    }

    fn may_move(&self, queue: u16) -> Result<&Queue, OpError> {
        if self.agreed() && self.motion == Motion::Suspended {
            self.queue(queue)
        } else {
            self.may_set_up(queue)
        }
    }

    fn may_change(&self, ability: Abilities) -> Result<(), OpError> {
        if !self.abilities.contains(ability) {
            return Err(OpError::Unsupported);
        }
        only_if(self.status & DRIVER_OK != 0 && self.status & FAILED == 0 && !self.lost)
    }

    fn is_packed(&self) -> bool {
        self.features & RING_PACKED != 0
    }

    fn start(&self) -> QueueState {
        if self.is_packed() {
            packed(0, true)
        } else {
            QueueState::Split { avail_index: 0 }
        }
    }
}

/// A packed queue with nothing in flight.
pub fn packed(index: u16, wrap: bool) -> QueueState {
    QueueState::Packed {
        avail_index: index,
        avail_wrap: wrap,
        used_index: index,
        used_wrap: wrap,
    }
}

/// What must lie below the size of the queue. Split indices run freely.
fn place(state: QueueState) -> u32 {
    match state {
        QueueState::Split { .. } => 0,
        QueueState::Packed { avail_index, .. } => avail_index.into(),
    }
}

fn only_if(allowed: bool) -> Result<(), OpError> {
    allowed.then_some(()).ok_or(OpError::WrongState)
}

fn valid_if(valid: bool) -> Result<(), OpError> {
    valid.then_some(()).ok_or(OpError::Invalid)
}
