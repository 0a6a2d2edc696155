//! An address space of an isolation unit.

use alloc::sync::Arc;
use alloc::vec::Vec;

use iommu::MESSAGE_WINDOW;
use spin::Mutex;
use vdpa::dma::IovaSpace;
use vdpa::iotlb::{IovaRange, Permission};
use vdpa::platform::{DomainChange, DomainError, IommuDomain};
use virtq::DmaAddr;

use crate::change::{Piece, Step, Table, waves};
use crate::error::{Dead, Refusal};
use crate::request::{Memory, Request, Status};
use crate::shared::{DomainId, Shared};

/// A domain of an IOMMU, for one unit. It is not the IOMMU's before it is entered.
pub(crate) struct Domain {
    iommu: Arc<Shared>,
    endpoints: Vec<u32>,
    reserved: Vec<IovaRange>,
    space: IovaSpace,
    /// Where interrupt messages must be let through, because the IOMMU translates them.
    messages: Option<IovaRange>,
    books: Arc<Mutex<Books>>,
}

/// What a domain maps, and who is in it.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) table: Table,
    entered: Option<Entered>,
}

#[derive(Debug)]
struct Entered {
    id: DomainId,
    endpoints: Vec<u32>,
}

/// Changes that were not made.
struct Failure {
    error: DomainError,
    /// What is not mapped any more, because it could not be mapped again.
    lost: Vec<IovaRange>,
}

impl From<DomainError> for Failure {
    fn from(error: DomainError) -> Self {
        let lost = Vec::new();
        Self { error, lost }
    }
}

impl Domain {
    /// A domain for endpoints that have these reserved addresses. `None`, if none are left.
    pub(crate) fn new(
        iommu: &Arc<Shared>,
        endpoints: Vec<u32>,
        mut reserved: Vec<IovaRange>,
        has_messages: bool,
    ) -> Option<Self> {
        let window = IovaRange::from_bounds(MESSAGE_WINDOW.0, MESSAGE_WINDOW.1).ok();
        let window = window.filter(|window| {
            let is_translated = iommu.limits.input.contains(*window);
            !has_messages && is_translated && iommu.limits.is_whole_pages(*window)
        });
        reserved.extend(window);
        let space = IovaSpace::new(&[iommu.limits.input], &reserved)?;
        let books = Books {
            table: Table::new(),
            entered: None,
        };
        Some(Self {
            iommu: Arc::clone(iommu),
            endpoints,
            reserved,
            space,
            messages: window,
            books: Arc::new(Mutex::new(books)),
        })
    }

    /// Attaches the endpoints; returns those that there are.
    fn attach(&self, domain: u32) -> Result<Vec<u32>, Failed> {
        let requests = self
            .endpoints
            .iter()
            .map(|&endpoint| Request::Attach { domain, endpoint });
        let requests: Vec<_> = requests.collect();
        let mut entered = Vec::new();
        let mut error = None;
        let outcomes = self.iommu.perform(&requests).map_err(|error| Failed {
            error,
            entered: Vec::new(),
        })?;
        for (endpoint, outcome) in self.endpoints.iter().zip(outcomes) {
            match outcome {
                Ok(()) => entered.push(*endpoint),
                // It sends nothing: a bridge that could send in the name of another, and does not.
                Err(Refusal::Status(Status::NoEntry)) => {}
                Err(refusal) => {
                    if refusal.is_doubtful() {
                        entered.push(*endpoint);
                    }
                    error = error.or(Some(refusal.into()));
                }
            }
        }
        match error {
            None if entered.is_empty() => Err(Failed {
                error: DomainError::Refused,
                entered,
            }),
            None => Ok(entered),
            Some(error) => Err(Failed { error, entered }),
        }
    }

    /// What is to be mapped in a domain with endpoints in it.
    fn fill(&self, domain: u32, table: &Table) -> Result<(), DomainError> {
        if let Some(window) = self.messages {
            let memory = match self.iommu.limits.mmio {
                true => Memory::Registers,
                false => Memory::Ram,
            };
            let request = Request::Map {
                domain,
                range: window,
                addr: DmaAddr(window.first()),
                permission: Permission::WRITE,
                memory,
            };
            self.iommu
                .perform(&[request])?
                .into_iter()
                .collect::<Result<(), _>>()?;
        }
        let steps: Vec<_> = table.pieces().map(Step::Map).collect();
        let mapped = self.carry_out(domain, &steps);
        mapped.map_err(|failure| failure.error)
    }

    /// Takes everything away from the endpoints, and them from the domain. If the IOMMU does not
    /// say that they reach nothing, it is out of use.
    fn leave(&self, entered: Entered, table: &Table) {
        let domain = entered.id.number;
        let ranges = table.pieces().map(|piece| piece.range).chain(self.messages);
        let unmap: Vec<_> = ranges
            .map(|range| Request::Unmap { domain, range })
            .collect();
        let ids = entered.endpoints.iter();
        let detach: Vec<_> = ids
            .map(|&endpoint| Request::Detach { domain, endpoint })
            .collect();
        let is_empty = self.all_done(&unmap);
        let is_left = self.all_done(&detach);
        if !is_left {
            self.iommu.abandon(entered.id);
        }
        if !is_empty && !is_left {
            self.iommu.give_up(Dead::Unconfirmed);
        }
    }

    fn all_done(&self, requests: &[Request]) -> bool {
        let outcomes = self.iommu.perform(requests);
        outcomes.is_ok_and(|outcomes| {
            outcomes.iter().all(|outcome| {
                // Who is not there reaches nothing.
                matches!(outcome, Ok(()) | Err(Refusal::Status(Status::NoEntry)))
            })
        })
    }

    /// Makes steps, or none of them.
    fn carry_out(&self, domain: u32, steps: &[Step]) -> Result<(), Failure> {
        let mut done = Vec::new();
        for wave in waves(steps) {
            let outcomes = self.iommu.perform(&requests(domain, wave))?;
            let mut error = None;
            let mut doubtful = Vec::new();
            for (step, outcome) in wave.iter().zip(outcomes) {
                match outcome {
                    Ok(()) => done.push(*step),
                    Err(refusal) => {
                        error = error.or(Some(DomainError::from(refusal)));
                        if matches!(step, Step::Map(_)) && refusal.is_doubtful() {
                            doubtful.push(*step);
                        }
                    }
                }
            }
            if let Some(error) = error {
                done.append(&mut doubtful);
                let lost = self.undo(domain, &done);
                return Err(Failure { error, lost });
            }
        }
        Ok(())
    }

    /// Takes steps back, the last first; returns what could not be mapped again. If the IOMMU does
    /// not say that something is gone, it is out of use.
    fn undo(&self, domain: u32, steps: &[Step]) -> Vec<IovaRange> {
        let back: Vec<_> = steps.iter().rev().map(|step| step.inverse()).collect();
        let mut lost = Vec::new();
        for wave in waves(&back) {
            let Ok(outcomes) = self.iommu.perform(&requests(domain, wave)) else {
                return lost;
            };
            for (step, outcome) in wave.iter().zip(outcomes) {
                match (step, outcome) {
                    (_, Ok(())) => {}
                    (Step::Unmap(_), Err(_)) => self.iommu.give_up(Dead::Unconfirmed),
                    (Step::Map(piece), Err(refusal)) => {
                        let (name, range) = (&self.iommu.name, piece.range);
                        log::error!("{name}: {range} cannot be mapped again: {refusal}");
                        lost.push(range);
                    }
                }
            }
        }
        lost
    }
}

/// Endpoints that could not be attached, and those that were, or may have been.
struct Failed {
    error: DomainError,
    entered: Vec<u32>,
}

fn requests(domain: u32, steps: &[Step]) -> Vec<Request> {
    let request = |step: &Step| match *step {
        Step::Map(Piece {
            range,
            permission,
            addr,
        }) => Request::Map {
            domain,
            range,
            addr,
            permission,
            memory: Memory::Ram,
        },
        Step::Unmap(Piece { range, .. }) => Request::Unmap { domain, range },
    };
    steps.iter().map(request).collect()
}

// SAFETY: an endpoint that is attached to a domain of the IOMMU reaches what the domain maps, and
// an endpoint that is not reaches nothing: the driver has ended bypass. What an IOMMU does not
// confirm has not happened.
unsafe impl IommuDomain for Domain {
    fn iova_ranges(&self) -> Vec<IovaRange> {
        Vec::from([self.iommu.limits.input])
    }

    fn reserved(&self) -> Vec<IovaRange> {
        self.reserved.clone()
    }

    fn enter(&self) -> Result<(), DomainError> {
        let mut books = self.books.lock();
        if books.entered.is_some() {
            return Ok(());
        }
        let id = self.iommu.allocate_domain()?;
        let domain = id.number;
        let (endpoints, filled) = match self.attach(domain) {
            Ok(endpoints) => (endpoints, self.fill(domain, &books.table)),
            Err(failed) => (failed.entered, Err(failed.error)),
        };
        let entered = Entered { id, endpoints };
        if let Err(error) = filled {
            self.leave(entered, &books.table);
            return Err(error);
        }
        for endpoint in &entered.endpoints {
            self.iommu.enter(*endpoint, &self.books);
        }
        books.entered = Some(entered);
        Ok(())
    }

    fn change(&self, changes: &[DomainChange]) -> Result<(), DomainError> {
        let mut books = self.books.lock();
        let books = &mut *books;
        let limits = &self.iommu.limits;
        let steps = books.table.change(changes, limits, &self.space)?;
        let Some(entered) = &books.entered else {
            return Ok(());
        };
        self.carry_out(entered.id.number, &steps)
            .map_err(|failure| {
                books.table.undo(&steps);
                for range in failure.lost {
                    books.table.forget(range);
                }
                failure.error
            })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let mut books = self.books.lock();
        if let Some(entered) = books.entered.take() {
            self.leave(entered, &books.table);
        }
    }
}
