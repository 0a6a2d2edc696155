//! An IOMMU that keeps to the specification to the letter, unless the test has it lie.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use vdpa::testing::{FakeParent, Request};
use virtio::DeviceStatus;

pub(crate) const REQUESTS: u16 = 0;
pub(crate) const EVENTS: u16 = 1;

pub(crate) const READ: u32 = 1;
pub(crate) const WRITE: u32 = 2;
pub(crate) const MMIO: u32 = 4;

const OK: u8 = 0;
const UNSUPPORTED: u8 = 2;
pub(crate) const DEVICE_ERROR: u8 = 3;
const INVALID: u8 = 4;
const RANGE: u8 = 5;
pub(crate) const NO_ENTRY: u8 = 6;
pub(crate) const NO_MEMORY: u8 = 8;

/// A request as the IOMMU sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Attach(u32, u32),
    Detach(u32, u32),
    /// Domain, first, last, physical address, flags.
    Map(u32, u64, u64, u64, u32),
    Unmap(u32, u64, u64),
    Probe(u32),
    Nonsense,
}

/// What the IOMMU makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// As specified.
    Honest,
    /// Nothing but this status.
    Refuse(u8),
    /// It carries it out, and gives this status.
    DoAndSay(u8),
    /// It carries it out and does not write the status.
    DoSilently,
    /// It carries it out, and says that it has written so much.
    DoAndMeasure(u32),
    /// It keeps it.
    Keep,
}

type Script = Box<dyn FnMut(&Asked) -> Reaction + Send>;

/// What the IOMMU is like.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    pub(crate) page_mask: u64,
    pub(crate) input: (u64, u64),
    pub(crate) domains: (u32, u32),
    pub(crate) probe_size: u32,
    /// Requesters that exist.
    pub(crate) endpoints: BTreeSet<u32>,
    /// What a probe answers.
    pub(crate) properties: Vec<u8>,
    pub(crate) takes_mmio: bool,
    /// Works at the last request first.
    pub(crate) backward: bool,
}

impl Traits {
    pub(crate) fn config(&self) -> Vec<u8> {
        let mut config = Vec::new();
        for long in [self.page_mask, self.input.0, self.input.1] {
            config.extend(long.to_le_bytes());
        }
        for word in [self.domains.0, self.domains.1, self.probe_size] {
            config.extend(word.to_le_bytes());
        }
        // bypass
        config.extend([1, 0, 0, 0]);
        config
    }

    fn page(&self) -> u64 {
        1 << self.page_mask.trailing_zeros()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) last: u64,
    pub(crate) addr: u64,
    pub(crate) flags: u32,
}

#[derive(Default)]
struct State {
    /// By their first addresses, of each domain.
    domains: BTreeMap<u32, BTreeMap<u64, Mapping>>,
    /// The domain of each endpoint.
    attached: BTreeMap<u32, u32>,
    asked: Vec<Asked>,
    script: Option<Script>,
}

pub(crate) struct Model {
    parent: Arc<FakeParent>,
    traits: Traits,
    state: Mutex<State>,
}

impl Model {
    pub(crate) fn new(parent: &Arc<FakeParent>, traits: Traits) -> Arc<Self> {
        Arc::new(Self {
            parent: Arc::clone(parent),
            traits,
            state: Mutex::default(),
        })
    }

    /// From now on the test says what becomes of each request.
    pub(crate) fn script(&self, script: impl FnMut(&Asked) -> Reaction + Send + 'static) {
        self.state.lock().unwrap().script = Some(Box::new(script));
    }

    pub(crate) fn be_honest(&self) {
        self.state.lock().unwrap().script = None;
    }

    /// What it was asked since the last call.
    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    /// What a domain maps.
    pub(crate) fn mapped(&self, domain: u32) -> Vec<(u64, Mapping)> {
        let state = self.state();
        let domain = state.domains.get(&domain);
        domain.map_or_else(Vec::new, |mappings| {
            mappings
                .iter()
                .map(|(first, mapping)| (*first, *mapping))
                .collect()
        })
    }

    /// The domain of an endpoint.
    pub(crate) fn domain_of(&self, endpoint: u32) -> Option<u32> {
        self.state().attached.get(&endpoint).copied()
    }

    /// Where an endpoint's access leads. One that is refused is told of.
    pub(crate) fn access(&self, endpoint: u32, addr: u64, flag: u32) -> Option<u64> {
        let reason = {
            let state = self.state();
            match state.attached.get(&endpoint) {
                None => 1,
                Some(domain) => {
                    let mappings = &state.domains[domain];
                    let before = mappings.range(..=addr).next_back();
                    match before.filter(|(_, mapping)| mapping.last >= addr) {
                        Some((first, mapping)) if mapping.flags & flag == flag => {
                            return Some(mapping.addr + (addr - first));
                        }
                        _ => 2,
                    }
                }
            }
        };
        self.report(reason, flag | 1 << 8, endpoint, addr);
        None
    }

    /// Tells of a fault, if there is a buffer for it.
    pub(crate) fn report(&self, reason: u8, flags: u32, endpoint: u32, addr: u64) -> bool {
        let mut bytes = vec![reason, 0, 0, 0];
        for word in [flags, endpoint, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(addr.to_le_bytes());
        self.report_bytes(&bytes)
    }

    pub(crate) fn report_bytes(&self, bytes: &[u8]) -> bool {
        let Some(request) = self.parent.pop(EVENTS) else {
            return false;
        };
        self.parent.complete(EVENTS, &request, bytes);
        true
    }

    /// Works at what it was asked.
    pub(crate) fn work(&self) {
        let mut requests: Vec<_> = std::iter::from_fn(|| self.parent.pop(REQUESTS)).collect();
        if self.traits.backward {
            requests.reverse();
        }
        for request in requests {
            self.answer(&request);
        }
    }

    fn answer(&self, request: &Request) {
        let asked = parse(&self.parent.read(REQUESTS, request));
        let room: u32 = request.writable.iter().map(|segment| segment.len).sum();
        let reaction = {
            let mut state = self.state();
            state.asked.push(asked);
            state
                .script
                .as_mut()
                .map_or(Reaction::Honest, |script| script(&asked))
        };
        let (properties, status) = match reaction {
            Reaction::Keep => return,
            Reaction::Refuse(status) => (Vec::new(), status),
            _ => self.carry_out(asked, room),
        };
        let status = match reaction {
            Reaction::DoAndSay(status) => status,
            _ => status,
        };
        let properties_room = room as usize - 4;
        let mut bytes = properties;
        bytes.resize(properties_room, 0);
        match reaction {
            Reaction::DoSilently => self.parent.complete(REQUESTS, request, &[]),
            Reaction::DoAndMeasure(written) => {
                bytes.extend([status, 0, 0, 0]);
                self.parent.with_ring(REQUESTS, |ring| {
                    ring.write(request, 0, &bytes);
                    ring.complete(u32::from(request.head), written);
                });
            }
            _ => {
                bytes.extend([status, 0, 0, 0]);
                self.parent.complete(REQUESTS, request, &bytes);
            }
        }
    }

    fn carry_out(&self, asked: Asked, room: u32) -> (Vec<u8>, u8) {
        let status = match asked {
            Asked::Probe(endpoint) => {
                assert_eq!(room, self.traits.probe_size + 4, "room for properties");
                if !self.traits.endpoints.contains(&endpoint) {
                    return (Vec::new(), NO_ENTRY);
                }
                return (self.traits.properties.clone(), OK);
            }
            _ if room != 4 => panic!("{asked:?} is answered in 4 bytes"),
            Asked::Attach(domain, endpoint) => self.attach(domain, endpoint),
            Asked::Detach(domain, endpoint) => self.detach(domain, endpoint),
            Asked::Map(domain, first, last, addr, flags) => {
                let mapping = Mapping { last, addr, flags };
                self.map(domain, first, mapping)
            }
            Asked::Unmap(domain, first, last) => self.unmap(domain, first, last),
            Asked::Nonsense => UNSUPPORTED,
        };
        (Vec::new(), status)
    }

    fn attach(&self, domain: u32, endpoint: u32) -> u8 {
        let (first, last) = self.traits.domains;
        if !(first..=last).contains(&domain) {
            return RANGE;
        }
        if !self.traits.endpoints.contains(&endpoint) {
            return NO_ENTRY;
        }
        let mut state = self.state();
        state.leave(endpoint);
        state.domains.entry(domain).or_default();
        state.attached.insert(endpoint, domain);
        OK
    }

    fn detach(&self, domain: u32, endpoint: u32) -> u8 {
        let mut state = self.state();
        if !self.traits.endpoints.contains(&endpoint) {
            return NO_ENTRY;
        }
        if state.attached.get(&endpoint) != Some(&domain) {
            return INVALID;
        }
        state.leave(endpoint);
        OK
    }

    fn map(&self, domain: u32, first: u64, new: Mapping) -> u8 {
        let page = self.traits.page();
        let whole = first.is_multiple_of(page)
            && new.last.wrapping_add(1).is_multiple_of(page)
            && new.addr.is_multiple_of(page);
        let mut flags = READ | WRITE;
        if self.traits.takes_mmio {
            flags |= MMIO;
        }
        if first < self.traits.input.0 || new.last > self.traits.input.1 || !whole {
            return RANGE;
        }
        if first > new.last || new.flags & !flags != 0 || new.flags == 0 {
            return INVALID;
        }
        let mut state = self.state();
        let Some(mappings) = state.domains.get_mut(&domain) else {
            return NO_ENTRY;
        };
        let before = mappings.range(..=new.last).next_back();
        if before.is_some_and(|(_, mapping)| mapping.last >= first) {
            return INVALID;
        }
        mappings.insert(first, new);
        OK
    }

    fn unmap(&self, domain: u32, first: u64, last: u64) -> u8 {
        let mut state = self.state();
        let Some(mappings) = state.domains.get_mut(&domain) else {
            return NO_ENTRY;
        };
        let cut = mappings.iter().any(|(start, mapping)| {
            let touches = *start <= last && mapping.last >= first;
            touches && (*start < first || mapping.last > last)
        });
        if cut {
            return RANGE;
        }
        mappings.retain(|start, _| !(first..=last).contains(start));
        OK
    }

    /// The state, which a reset has cleared.
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        if !self.parent.status().contains(DeviceStatus::DRIVER_OK) {
            state.domains.clear();
            state.attached.clear();
        }
        state
    }
}

impl State {
    /// A domain that its last endpoint has left is there no more.
    fn leave(&mut self, endpoint: u32) {
        if let Some(domain) = self.attached.remove(&endpoint)
            && !self.attached.values().any(|other| *other == domain)
        {
            self.domains.remove(&domain);
        }
    }
}

fn parse(bytes: &[u8]) -> Asked {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(bytes[1..4], [0; 3], "reserved");
    match (bytes[0], bytes.len()) {
        (1 | 2, 20) => {
            assert_eq!(bytes[12..], [0; 8], "flags and reserved");
            match bytes[0] {
                1 => Asked::Attach(word(4), word(8)),
                _ => Asked::Detach(word(4), word(8)),
            }
        }
        (3, 36) => Asked::Map(word(4), long(8), long(16), long(24), word(32)),
        (4, 28) => {
            assert_eq!(bytes[24..], [0; 4], "reserved");
            Asked::Unmap(word(4), long(8), long(16))
        }
        (5, 72) => {
            assert_eq!(bytes[8..], [0; 64], "reserved");
            Asked::Probe(word(4))
        }
        _ => Asked::Nonsense,
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("traits", &self.traits)
            .finish_non_exhaustive()
    }
}
