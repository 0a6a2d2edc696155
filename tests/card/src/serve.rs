//! One round over all queues of a card.

use crate::blk::Request;
use crate::card::Function;
use crate::engine::{Engine, HELD_MAX, Trouble};
use crate::migration::Block;
use crate::net::{Limits, Pair, serve_control};
use crate::plan::bits;
use crate::state::State;

/// Requests of a block queue that are taken in one round, and finished in the next.
const BATCH: usize = 8;

impl State {
    /// Returns how much was done.
    pub(crate) fn serve_net(&mut self) -> usize {
        let mut done = 0;
        let pairs = self.pairs();
        for pair in 0..pairs {
            let (receive, transmit) = (2 * pair, 2 * pair + 1);
            match self.serve_pair(pair) {
                Ok(count) => done += count,
                Err((queue, trouble)) => self.broken(queue, trouble),
            }
            self.signal_queue(receive);
            self.signal_queue(transmit);
        }
        let control = 2 * pairs;
        match self.serve_command(control) {
            Ok(count) => done += usize::from(count),
            Err(trouble) => self.broken(control, trouble),
        }
        self.signal_queue(control);
        done
    }

    /// How many pairs of queues come before the control queue (VIRTIO 1.2, 5.1.2).
    fn pairs(&self) -> u16 {
        let many = self.common.driver_features & bits(virtio::net::F::MQ) != 0;
        if many { self.plan.queues } else { 1 }
    }

    fn serve_pair(&mut self, index: u16) -> Result<usize, (u16, Trouble)> {
        let first = 2 * usize::from(index);
        let Function::Net(wire) = &mut self.function else {
            return Ok(0);
        };
        let kicks = [first, first + 1].map(|queue| self.kicks[queue].count());
        let [receive, transmit] = &mut self.engines[first..first + 2] else {
            return Ok(0);
        };
        let mut pair = Pair {
            index,
            receive: receive.as_mut(),
            transmit: transmit.as_mut(),
            kicks,
            prefetch: self.plan.prefetch.clamp(1, HELD_MAX),
            pages: &mut self.pages,
            violations: &mut self.violations,
            frames: &mut self.counters.frames,
        };
        pair.serve(&mut **wire)
    }

    fn serve_command(&mut self, queue: u16) -> Result<bool, Trouble> {
        let index = usize::from(queue);
        let Some(engine) = &mut self.engines[index] else {
            return Ok(false);
        };
        let kicks = self.kicks[index].count();
        let (pages, violations) = (&mut self.pages, &mut self.violations);
        let limits = Limits {
            features: self.common.driver_features,
            pairs: self.plan.queues,
        };
        let settings = &mut self.settings;
        serve_control(engine, kicks, limits, settings, pages, violations)
    }

    /// Finishes what the last round has taken, and takes the next requests.
    pub(crate) fn serve_blk(&mut self) -> usize {
        let mut done = 0;
        for queue in 0..self.plan.queue_count() {
            let held = self.engines[usize::from(queue)]
                .as_ref()
                .map_or(0, |engine| engine.held.len());
            done += self.finish(queue, held);
            done += self.take(queue);
            self.show_stand(queue);
            self.signal_queue(queue);
        }
        done
    }

    fn take(&mut self, queue: u16) -> usize {
        let index = usize::from(queue);
        let Some(engine) = &mut self.engines[index] else {
            return 0;
        };
        let kicks = self.kicks[index].count();
        for done in 0..BATCH {
            match engine.take(kicks, &mut self.violations) {
                Ok(true) => {}
                Ok(false) => return done,
                Err(trouble) => {
                    self.broken(queue, trouble);
                    return done;
                }
            }
        }
        BATCH
    }

    /// Finishes all that a block queue has taken, before it stops.
    pub(crate) fn drain(&mut self, queue: u16) {
        if self.runs() {
            self.pages.log = self.block.as_ref().and_then(Block::log);
            self.finish(queue, usize::from(HELD_MAX));
            self.signal_queue(queue);
        }
    }

    /// Finishes so many requests in the order in which they were taken.
    fn finish(&mut self, queue: u16, count: usize) -> usize {
        for done in 0..count {
            match self.finish_one(queue) {
                Ok(true) => {}
                Ok(false) => return done,
                Err(trouble) => {
                    self.broken(queue, trouble);
                    return done;
                }
            }
        }
        count
    }

    fn finish_one(&mut self, queue: u16) -> Result<bool, Trouble> {
        let Function::Blk(storage) = &mut self.function else {
            return Ok(false);
        };
        let Some(engine) = &mut self.engines[usize::from(queue)] else {
            return Ok(false);
        };
        let Some(chain) = engine.held.pop_front() else {
            return Ok(false);
        };
        let engine: &mut Engine = engine;
        let mut request = Request {
            engine,
            chain: &chain,
            storage: &mut **storage,
            pages: &mut self.pages,
            violations: &mut self.violations,
            requests: &mut self.counters.requests,
            features: self.common.driver_features,
        };
        let written = request.serve();
        engine.complete(chain, written, &mut self.violations)?;
        Ok(true)
    }
}
