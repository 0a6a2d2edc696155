//! The devices under measurement: those that QEMU has, and simulated ones that are made when a row
//! needs them.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use guest_bench::row::Path;
use kernel::System;
use virtio_blk::Disk;

use crate::Failure;
use crate::net::Cards;
use crate::simulated::{Simulated, Vhost};

/// The machine and its devices.
pub struct Machine {
    system: System,
    disk: Option<Disk>,
    cards: Cards,
    vhost: Vhost,
}

/// What a row measures, and what is to be taken away afterwards.
pub struct Lease<T> {
    /// The disk or the cards.
    pub subject: T,
    simulated: Option<Simulated>,
}

impl Machine {
    /// Takes the devices that are there.
    pub async fn new(system: System) -> Result<Self, Failure> {
        let disk = system.disks().take();
        let cards: Vec<_> = core::iter::from_fn(|| system.nets().take()).collect();
        let vhost = Vhost::new().await?;
        Ok(Self {
            system,
            disk,
            cards: Rc::new(RefCell::new(cards)),
            vhost,
        })
    }

    /// The kernel's services.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// The disk at the end of `path`.
    pub async fn disk(&self, path: Path) -> Result<Lease<Disk>, Failure> {
        let vhost = match path {
            Path::Pci => {
                let disk = self.disk.clone().ok_or("the machine has no disk")?;
                return Ok(Lease::of(disk));
            }
            Path::SimVirtio | Path::VduseVirtio => None,
            Path::SimVhost | Path::VduseVhost => Some(&self.vhost),
        };
        let simulated = match path {
            Path::VduseVirtio | Path::VduseVhost => {
                Simulated::disk_of_a_task(&self.system, vhost).await?
            }
            _ => Simulated::disk(&self.system, vhost).await?,
        };
        let registry = vhost.map_or(self.system.disks(), |vhost| &vhost.disks);
        let disk = registry.take().ok_or("the simulated disk has no driver")?;
        Ok(Lease {
            subject: disk,
            simulated: Some(simulated),
        })
    }

    /// The cards at the ends of `path`.
    pub async fn cards(&self, path: Path) -> Result<Lease<Cards>, Failure> {
        let vhost = match path {
            Path::Pci if self.cards.borrow().len() == 2 => {
                return Ok(Lease::of(Rc::clone(&self.cards)));
            }
            Path::Pci => return Err("the machine has no two network cards".into()),
            Path::SimVirtio => None,
            Path::SimVhost => Some(&self.vhost),
            Path::VduseVirtio | Path::VduseVhost => return Err("no task has a card".into()),
        };
        let simulated = Simulated::net(&self.system, vhost).await?;
        let registry = vhost.map_or(self.system.nets(), |vhost| &vhost.nets);
        let card = registry.take().ok_or("the simulated card has no driver")?;
        Ok(Lease {
            subject: Rc::new(RefCell::new(vec![card])),
            simulated: Some(simulated),
        })
    }

    /// Ends a lease.
    pub async fn give_back<T>(&self, lease: Lease<T>) {
        drop(lease.subject);
        if let Some(simulated) = lease.simulated {
            simulated.remove(&self.system).await;
        }
    }
}

impl<T> Lease<T> {
    /// Of something that stays.
    fn of(subject: T) -> Self {
        Self {
            subject,
            simulated: None,
        }
    }
}
