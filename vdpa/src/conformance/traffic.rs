//! Data through a device, whatever its type: for checks that need something to happen in its
//! queues.

use alloc::format;
use alloc::vec::Vec;

use crate::ops::QueueState;

use super::bench::{Bench, Format};
use super::rig::{Answer, Rig};
use super::verdict::{OrFail, Stop, Verdict, ensure, equal, skip_unless};
use super::{Service, blk, net};

/// A running device that serves requests, and how far they have been counted.
pub(super) struct Traffic {
    pub(super) rig: Rig,
    service: Service,
    number: u8,
}

impl Traffic {
    /// A running device; the check is skipped if nobody serves its queues.
    pub(super) async fn start(bench: &Bench<'_>, format: Format) -> Result<Self, Stop> {
        let traffic = Self::set_up(bench, format).await?;
        traffic.rig.run(bench).await?;
        Ok(traffic)
    }

    /// The same, one step before `DRIVER_OK`.
    pub(super) async fn set_up(bench: &Bench<'_>, format: Format) -> Result<Self, Stop> {
        let service = bench.subject.service();
        skip_unless(service != Service::None, "nobody serves its queues")?;
        let rig = Rig::set_up(bench, format).await?;
        let traffic = Self {
            rig,
            service,
            number: 0,
        };
        let enough = traffic.rig.lines.len() > traffic.requests();
        ensure(enough, "it lacks queues for its service")?;
        Ok(traffic)
    }

    /// The queue that the answer comes from.
    pub(super) fn answers(&self) -> usize {
        0
    }

    /// The queue that takes the request.
    pub(super) fn requests(&self) -> usize {
        usize::from(self.service == Service::NetLoopback)
    }

    /// Makes the next request available, and tells the device if `Told::Yes`.
    pub(super) fn request(&mut self, told: Told) -> Verdict {
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let Rig { lines, dma, .. } = &mut self.rig;
        match self.service {
            Service::NetLoopback => {
                lines[0].offer(dma, &[], net::BUFFER_LEN)?;
                lines[1].offer(dma, &net::sent(number), 0)?;
            }
            _ => lines[0].offer(dma, &blk::read_request(0), blk::READ_LEN)?,
        }
        if told == Told::Yes {
            lines.iter_mut().for_each(|line| line.kick());
        }
        Ok(())
    }

    /// Tells the device of everything that was made available.
    pub(super) fn kick(&mut self) {
        self.rig.lines.iter_mut().for_each(|line| line.kick());
    }

    /// Waits for the answer to the next request that has not been answered, and checks it.
    pub(super) async fn answer(&mut self, bench: &Bench<'_>, number: u8) -> Verdict {
        let (requests, answers) = (self.requests(), self.answers());
        let answer = self.rig.lines[answers].answer(bench).await?;
        if self.service == Service::NetLoopback {
            self.rig.lines[requests].answer(bench).await?;
            net::check_received(bench, &answer, number)
        } else {
            check_read(&answer)
        }
    }

    /// One request from the start to the end.
    pub(super) async fn round_trip(&mut self, bench: &Bench<'_>) -> Verdict {
        self.request(Told::Yes)?;
        let number = self.number;
        self.answer(bench, number).await
    }

    /// How many requests have been made; the answer to the latest has this number.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// How many bytes the device writes for the answer to the latest request.
    pub(super) fn answer_len(&self) -> usize {
        match self.service {
            Service::NetLoopback => net::sent(self.number).len(),
            _ => blk::READ_LEN,
        }
    }

    /// Whether nothing comes back for a while.
    pub(super) async fn is_quiet(&mut self, bench: &Bench<'_>) -> Verdict {
        for line in &mut self.rig.lines {
            line.is_quiet(bench).await?;
        }
        Ok(())
    }

    /// Where the queues stand, as the device says.
    pub(super) async fn states(&self, bench: &Bench<'_>) -> Result<Vec<QueueState>, Stop> {
        let mut states = Vec::new();
        for line in &self.rig.lines {
            let state = bench.device.queue_state(line.index).await;
            states.push(state.or_fail(format!("the state of queue {}", line.index))?);
        }
        Ok(states)
    }

    pub(super) async fn stop(self, bench: &Bench<'_>) -> Verdict {
        self.rig.stop(bench).await
    }
}

/// Whether the device is told of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Yes,
    No,
}

fn check_read(answer: &Answer) -> Verdict {
    equal("the length of the answer", &answer.written, &blk::READ_LEN)?;
    equal("the status of a read", &answer.bytes.last(), &Some(&0))
}
