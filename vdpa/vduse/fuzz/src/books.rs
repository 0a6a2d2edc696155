//! Who has which request: each is with the task once, and answered once.

use std::collections::BTreeMap;

use vdpa_vduse::{Job, Task, TaskError};

use super::task::Watch;

/// How many bytes a request's number takes.
pub const NUMBER: usize = 8;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Waiting,
    /// The task has written so many bytes of the answer, from the first one on.
    Taken(Job, u64),
    Answered(u64),
}

/// The requests that the driver has not got back.
#[derive(Default)]
pub struct Books(BTreeMap<u64, (u16, Place)>);

impl Books {
    pub fn offered(&mut self, number: u64, queue: u16) {
        self.0.insert(number, (queue, Place::Waiting));
    }

    /// The driver has got a request back, with so many bytes of the answer.
    pub fn returned(&mut self, number: u64, answer: &[u8], written: usize) {
        let place = self.0.remove(&number);
        let Some((_, Place::Answered(filled))) = place else {
            panic!("request {number} comes back, but it was {place:?}");
        };
        assert_eq!(
            written as u64, filled,
            "the driver is told of what was written"
        );
        assert!(written >= NUMBER, "the task has written the number");
        let told = answer[..NUMBER].try_into().expect("so many");
        assert_eq!(u64::from_le_bytes(told), number, "another request's answer");
    }

    /// The task has lost its requests of this queue, or of all.
    pub fn taken_back(&mut self, queue: Option<u16>) {
        for (of, place) in self.0.values_mut() {
            if queue.is_none_or(|queue| queue == *of) && matches!(place, Place::Taken(..)) {
                *place = Place::Waiting;
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn find(&mut self, job: Job) -> Option<(u16, &mut Place)> {
        let mut places = self.0.values_mut();
        let is_it = |place: &Place| matches!(place, Place::Taken(taken, _) if *taken == job);
        let (queue, place) = places.find(|(_, place)| is_it(place))?;
        Some((*queue, place))
    }
}

impl Watch for Books {
    fn taken(&mut self, task: &Task, job: Job) {
        let mut number = [0; NUMBER];
        assert_eq!(task.read(job, 0, &mut number), Ok(NUMBER));
        let number = u64::from_le_bytes(number);
        let Some((queue, place)) = self.0.get_mut(&number) else {
            panic!("request {number} is not the driver's, or not any more");
        };
        assert_eq!(
            (*queue, *place),
            (job.queue(), Place::Waiting),
            "request {number} is taken twice"
        );
        let mut filled = 0;
        if let Ok(done) = task.write(job, 0, &number.to_le_bytes()) {
            filled = done as u64;
        }
        *place = Place::Taken(job, filled);
    }

    fn written(&mut self, job: Job, offset: u64, len: usize) {
        let (_, place) = self.find(job).expect("only such a request is written to");
        if let Place::Taken(_, filled) = place
            && offset <= *filled
        {
            *filled = (*filled).max(offset.saturating_add(len as u64));
        }
    }

    fn answered(&mut self, job: Job, told: Result<(), TaskError>) {
        match (self.find(job), told) {
            (Some((_, place)), Ok(())) => {
                if let Place::Taken(_, filled) = *place {
                    *place = Place::Answered(filled);
                }
            }
            (None, Ok(())) => panic!("a request is answered that the task does not have"),
            (Some(_), Err(TaskError::NoJob)) => panic!("a request of the task is lost"),
            (_, Err(_)) => {}
        }
    }

    fn died(&mut self) {
        self.taken_back(None);
    }
}
