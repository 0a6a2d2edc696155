//! The disk as a [model](crate::model): its configuration, its queues and what it counts.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use vdpa::Features;
use vdpa::config::blk;
use vdpa::ops::VendorCounter;
use virtio::blk::F;

use crate::model::{Budget, CONFIG_MAX, ChainLimits, Model, Shape, Turn};
use crate::sim_queue::SimQueue;

use super::config::{self, CONFIG_SIZE};
use super::counters::Counters;
use super::disk::RamDisk;
use super::request::{Medium, answer};
use super::{Access, SimBlkConfig};

/// A disk in memory.
pub(super) struct BlkModel {
    disk: Arc<RamDisk>,
    access: Access,
    config: [u8; CONFIG_MAX],
    seg_max: u16,
    features: Features,
    /// The queue whose turn it is.
    next: usize,
    counters: Box<[Counters]>,
}

impl BlkModel {
    pub(super) fn new(config: &SimBlkConfig) -> Self {
        Self {
            disk: Arc::clone(&config.disk),
            access: config.access,
            config: config::space(config),
            seg_max: config::seg_max(config),
            features: Features::EMPTY,
            next: 0,
            counters: vec![Counters::default(); usize::from(config.queues)].into(),
        }
    }
}

impl Model for BlkModel {
    fn shape(&self) -> Shape {
        Shape {
            device_id: u8::from(virtio::Id::Block).into(),
            name: "sim-blk",
            features: config::features(self.access),
            queues: u16::try_from(self.counters.len()).expect("made from 16 bits"),
            groups: 1,
            config_size: CONFIG_SIZE,
        }
    }

    fn accepts(&self, _features: Features) -> bool {
        true
    }

    fn group(&self, _queue: u16, _features: Features) -> u16 {
        0
    }

    /// A driver that does not know `seg_max` keeps to the size of the queue.
    fn limits(&self, _queue: u16, size: u16, _features: Features) -> ChainLimits {
        ChainLimits {
            segments: size.max(self.seg_max + 2),
            in_flight: 1,
        }
    }

    fn read_config(&self, config: &mut [u8; CONFIG_MAX]) {
        *config = self.config;
    }

    /// VIRTIO 1.2, 5.2.5: the cache is all that a driver can switch.
    fn write_config(&mut self, offset: u32, byte: u8, features: Features) {
        let writeback = offset == blk::WRITEBACK.layout().offset;
        if writeback && byte <= 1 && features.contains(F::CONFIG_WCE) {
            blk::WRITEBACK.put(&mut self.config, byte);
        }
    }

    fn start(&mut self, features: Features) {
        self.features = features;
    }

    fn reset(&mut self) {
        self.features = Features::EMPTY;
        blk::WRITEBACK.put(&mut self.config, 1);
    }

    fn serve(&mut self, ports: &mut [Option<SimQueue>], budget: &mut Budget) -> Turn {
        // Once for the turn, also if other devices use the disk.
        let mut medium = Medium {
            contents: &mut self.disk.contents(),
            capacity: self.disk.capacity(),
            access: self.access,
            features: self.features,
        };
        for _ in 0..ports.len() {
            let index = self.next;
            self.next = (self.next + 1) % ports.len();
            let Some(port) = &mut ports[index] else {
                continue;
            };
            let counters = &mut self.counters[index];
            loop {
                if budget.is_spent() {
                    return Turn::More;
                }
                let Some(chain) = port.take() else {
                    break;
                };
                budget.pay(chain.readable_len() + chain.writable_len());
                let written = answer(&mut medium, port, &chain, counters, budget);
                port.complete(chain, written);
            }
        }
        Turn::Idle
    }

    fn statistics(&self, queue: u16, _features: Features) -> Vec<VendorCounter> {
        let counters = self.counters.get(usize::from(queue));
        counters.map_or_else(Vec::new, Counters::list)
    }
}
