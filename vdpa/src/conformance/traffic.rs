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
    /// The queue of the requests.
    queue: usize,
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
        let queue = match service {
            Service::NetLoopback => 1,
            Service::Requests => usize::from(bench.subject.request(1).queue),
            _ => 0,
        };
        let traffic = Self {
            rig,
            service,
            queue,
            number: 0,
        };
        let enough = traffic.rig.lines.len() > traffic.requests();
        ensure(enough, "it lacks queues for its service")?;
        Ok(traffic)
    }

    /// The queue that the answer comes from.
    pub(super) fn answers(&self) -> usize {
        match self.service {
            Service::NetLoopback => 0,
            _ => self.queue,
        }
    }

    /// The queue that takes the request.
    pub(super) fn requests(&self) -> usize {
        self.queue
    }

    /// Makes the next request available, and tells the device if `Told::Yes`.
    pub(super) fn request(&mut self, bench: &Bench<'_>, told: Told) -> Verdict {
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let Rig { lines, dma, .. } = &mut self.rig;
        match self.service {
            Service::NetLoopback => {
                lines[0].offer(dma, &[], net::BUFFER_LEN)?;
                lines[1].offer(dma, &net::sent(number), 0)?;
            }
            Service::Requests => {
                let request = bench.subject.request(number);
                let same = usize::from(request.queue) == self.queue;
                ensure(same, "its requests are for different queues")?;
                lines[self.queue].offer(dma, &request.bytes, request.room)?;
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
        match self.service {
            Service::NetLoopback => {
                self.rig.lines[requests].answer(bench).await?;
                net::check_received(bench, &answer, number)
            }
            Service::Requests => answer.judge(bench, number),
            _ => check_read(&answer),
        }
    }

    /// One request from the start to the end.
    pub(super) async fn round_trip(&mut self, bench: &Bench<'_>) -> Verdict {
        self.request(bench, Told::Yes)?;
        let number = self.number;
        self.answer(bench, number).await
    }

    /// How many requests have been made; the answer to the latest has this number.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// How many bytes the device writes at least for the answer to the latest request.
    pub(super) fn answer_len(&self, bench: &Bench<'_>) -> usize {
        match self.service {
            Service::NetLoopback => net::sent(self.number).len(),
            Service::Requests => *bench.subject.request(self.number).used.start(),
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
