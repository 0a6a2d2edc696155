//! One IOMMU: what its domains, its task and its driver share.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Mutex;
use vdpa::dma::{DmaFault, DmaFaultKind, IsolationUnit};
use vdpa::ids::{IdAllocator, IdGuard};
use vdpa::platform::DomainError;
use vdpa::tree::{Bytes, Inspect, Report};
use virtio_bus::VirtioClaim;
use virtq::{Event as Alarm, Pending};

use crate::config::Limits;
use crate::domain::Books;
use crate::error::{Dead, Refusal};
use crate::event::{Event, EventQueue, Fault, Reason};
use crate::message::Message;
use crate::probe::Reserved;
use crate::request::{Request, Status};
use crate::request_queue::RequestQueue;
use crate::topology::Topology;

/// How many events are handled before other tasks have their turn.
const EVENTS_AT_ONCE: usize = 32;

/// One IOMMU that runs.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) device: VirtioClaim,
    pub(crate) limits: Limits,
    pub(crate) topology: Arc<dyn Topology>,
    /// The queues, until the device has been let go of.
    pub(crate) queues: Queues,
    /// Whether it is not asked any more.
    dead: AtomicBool,
    /// Whether its driver lets it go.
    stopped: AtomicBool,
    /// Raised with each of the two.
    pub(crate) end: Alarm,
    /// By what the IOMMU calls them.
    endpoints: Mutex<BTreeMap<u32, Endpoint>>,
    domain_ids: Arc<IdAllocator>,
    /// Domains that an endpoint may still be in.
    abandoned: Mutex<Vec<DomainId>>,
    counters: Counters,
    pub(crate) _id: IdGuard,
}

/// Both queues of an IOMMU.
pub(crate) struct Queues {
    pub(crate) requests: Mutex<Option<RequestQueue>>,
    pub(crate) events: Mutex<Option<EventQueue>>,
}

/// What is known of an endpoint that somebody has asked for.
#[derive(Default)]
struct Endpoint {
    unit: Weak<IsolationUnit>,
    /// What its domain maps.
    books: Weak<Mutex<Books>>,
    reserved: Option<Reserved>,
}

#[derive(Default)]
struct Counters {
    faults: AtomicU64,
    /// Faults of endpoints that nobody has asked for.
    unknown: AtomicU64,
    malformed: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        name: String,
        device: VirtioClaim,
        limits: Limits,
        topology: Arc<dyn Topology>,
        queues: Queues,
        id: IdGuard,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            device,
            limits,
            topology,
            queues,
            dead: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            end: Alarm::new(),
            endpoints: Mutex::default(),
            domain_ids: IdAllocator::new(limits.domain_count()),
            abandoned: Mutex::default(),
            counters: Counters::default(),
            _id: id,
        })
    }

    /// Whether it can be asked.
    pub(crate) fn is_alive(&self) -> bool {
        !self.dead.load(Ordering::Acquire)
    }

    /// Whether its driver lets it go.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Nothing is asked of it any more, because its driver lets it go.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.dead.store(true, Ordering::Release);
        self.end.raise();
    }

    /// Nothing is asked of it any more, because it does not work. Its task resets it.
    pub(crate) fn give_up(&self, dead: Dead) {
        if !self.dead.swap(true, Ordering::AcqRel) {
            log::error!("{}: out of use: {dead}", self.name);
            self.device.mark_broken();
        }
        self.end.raise();
    }

    /// Sends requests that do not depend on each other, and says what became of each.
    pub(crate) fn perform(
        &self,
        requests: &[Request],
    ) -> Result<Vec<Result<(), Refusal>>, DomainError> {
        self.with_requests(|queue| queue.send(&self.device, requests))
    }

    fn with_requests<R>(
        &self,
        act: impl FnOnce(&mut RequestQueue) -> Result<R, Dead>,
    ) -> Result<R, DomainError> {
        let mut queue = self.queues.requests.lock();
        if !self.is_alive() {
            return Err(DomainError::Timeout);
        }
        let queue = queue.as_mut().ok_or(DomainError::Timeout)?;
        // Before anybody else has the queue.
        act(queue).map_err(|dead| {
            self.give_up(dead);
            dead.into()
        })
    }

    /// A domain that no endpoint is in.
    pub(crate) fn allocate_domain(&self) -> Result<DomainId, DomainError> {
        let guard = self.domain_ids.allocate();
        let guard = guard.map_err(|_| DomainError::OutOfResources)?;
        Ok(DomainId {
            number: self.limits.domains.0 + guard.number(),
            _guard: guard,
        })
    }

    /// An endpoint may still be in a domain: its number gets no other meaning.
    pub(crate) fn abandon(&self, domain: DomainId) {
        self.abandoned.lock().push(domain);
    }

    /// From now on an endpoint can reach what the books say.
    pub(crate) fn enter(&self, endpoint: u32, books: &Arc<Mutex<Books>>) {
        if let Some(known) = self.endpoints.lock().get_mut(&endpoint) {
            known.books = Arc::downgrade(books);
        }
    }

    /// What the IOMMU calls the requesters of a unit that it translates for.
    pub(crate) fn endpoints_of(&self, unit: &IsolationUnit) -> Vec<u32> {
        // Requests with a PASID are not in any domain.
        if unit.pasid().is_some() {
            return Vec::new();
        }
        let ids = unit.requester_ids().iter();
        ids.filter_map(|id| self.topology.endpoint(self.device.node(), *id))
            .collect()
    }

    /// The addresses that must not be mapped for an endpoint, which belongs to `unit`.
    pub(crate) fn reserved(
        &self,
        endpoint: u32,
        unit: &Arc<IsolationUnit>,
    ) -> Result<Reserved, DomainError> {
        {
            let mut endpoints = self.endpoints.lock();
            endpoints.retain(|_, known| known.unit.strong_count() + known.books.strong_count() > 0);
            let known = endpoints.entry(endpoint).or_default();
            known.unit = Arc::downgrade(unit);
            if let Some(reserved) = &known.reserved {
                return Ok(reserved.clone());
            }
        }
        let reserved = self.probe(endpoint)?;
        if let Some(known) = self.endpoints.lock().get_mut(&endpoint) {
            known.reserved = Some(reserved.clone());
        }
        Ok(reserved)
    }

    fn probe(&self, endpoint: u32) -> Result<Reserved, DomainError> {
        let Some(size) = self.limits.probe_size else {
            return Ok(Reserved::default());
        };
        let message = Message::probe(&self.device.dma(), endpoint, size);
        let message = message.map_err(|_| DomainError::OutOfResources)?;
        let used = self.with_requests(|queue| queue.ask(&self.device, message))?;
        match used.chain.outcome(used.written) {
            Ok(()) => Reserved::parse(used.chain.properties()).map_err(|error| {
                log::error!("{}: {error}", self.name);
                DomainError::Refused
            }),
            // An id that a bridge would use, and does not.
            Err(Refusal::Status(Status::NoEntry)) => Ok(Reserved::default()),
            Err(refusal) => {
                log::error!(
                    "{}: properties of endpoint {endpoint:#x}: {refusal}",
                    self.name
                );
                Err(refusal.into())
            }
        }
    }

    /// Handles some of the events that there are.
    pub(crate) fn handle_events(&self) -> Pending {
        let mut events = Vec::new();
        let pending = match self.take_events(&mut events) {
            Ok(pending) => pending,
            Err(dead) => {
                self.give_up(dead);
                Pending::No
            }
        };
        for event in events {
            match event {
                Event::Fault(fault) => self.handle_fault(fault),
                Event::Malformed => {
                    self.count("events of a wrong length", &self.counters.malformed);
                }
            }
        }
        pending
    }

    fn take_events(&self, events: &mut Vec<Event>) -> Result<Pending, Dead> {
        let mut queue = self.queues.events.lock();
        let Some(queue) = queue.as_mut() else {
            return Ok(Pending::No);
        };
        while events.len() < EVENTS_AT_ONCE {
            match queue.take().map_err(|_| Dead::Broken)? {
                Some(event) => events.push(event),
                None => {
                    queue.kick();
                    return Ok(queue.enable_interrupts());
                }
            }
        }
        queue.kick();
        Ok(Pending::Yes)
    }

    fn handle_fault(&self, fault: Fault) {
        self.counters.faults.fetch_add(1, Ordering::Relaxed);
        let known = {
            let endpoints = self.endpoints.lock();
            let known = endpoints.get(&fault.endpoint);
            known.and_then(|known| Some((known.unit.upgrade()?, known.books.clone())))
        };
        let Some((unit, books)) = known else {
            self.count("faults of unknown endpoints", &self.counters.unknown);
            return;
        };
        unit.report_fault(DmaFault {
            addr: fault.addr.unwrap_or_default(),
            access: fault.access,
            kind: kind(fault, &books),
        });
    }

    /// Counts what an IOMMU does as often as it likes, and tells of it a few times.
    fn count(&self, what: &str, counter: &AtomicU64) {
        let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            log::warn!("{}: {what}: {count}", self.name);
        }
    }

    /// What its domains map, in bytes, and how many there are.
    fn usage(&self) -> (u128, usize) {
        let books: Vec<_> = {
            let endpoints = self.endpoints.lock();
            endpoints
                .values()
                .filter_map(|known| known.books.upgrade())
                .collect()
        };
        let mut seen: Vec<&Arc<Mutex<Books>>> = Vec::new();
        let mut bytes = 0;
        for books in &books {
            if !seen.iter().any(|other| Arc::ptr_eq(other, books)) {
                bytes += books.lock().table.bytes();
                seen.push(books);
            }
        }
        (bytes, seen.len())
    }
}

/// Why an access of an endpoint was refused, as its domain explains it.
fn kind(fault: Fault, books: &Weak<Mutex<Books>>) -> DmaFaultKind {
    match (fault.reason, fault.addr) {
        (Reason::Domain, _) => DmaFaultKind::NotMapped,
        (Reason::Mapping, Some(addr)) => {
            let books = books.upgrade();
            // One that is being changed says nothing.
            let books = books.as_ref().and_then(|books| books.try_lock());
            match books {
                Some(books) if books.table.maps(addr) => DmaFaultKind::NotPermitted,
                _ => DmaFaultKind::NotMapped,
            }
        }
        (Reason::Mapping, None) | (Reason::Unknown, _) => DmaFaultKind::Other,
    }
}

/// The number of a domain, which is free again when the value is dropped.
#[derive(Debug)]
pub(crate) struct DomainId {
    pub(crate) number: u32,
    _guard: IdGuard,
}

impl Inspect for Shared {
    fn report(&self) -> Report {
        let (bytes, domains) = self.usage();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        let state = match (self.is_stopped(), self.is_alive()) {
            (true, _) => "let go",
            (false, true) => "on",
            (false, false) => "broken",
        };
        let facts = [
            ("state", state.to_string()),
            ("translates", self.limits.describe()),
            (
                "domains",
                format!("{domains} of {}", self.limits.domain_count()),
            ),
            (
                "mapped",
                Bytes(u64::try_from(bytes).unwrap_or(u64::MAX)).to_string(),
            ),
            ("faults", count(&self.counters.faults)),
            ("faults of unknown endpoints", count(&self.counters.unknown)),
            ("events of a wrong length", count(&self.counters.malformed)),
        ];
        Report {
            facts: facts.into(),
            ..Report::default()
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
