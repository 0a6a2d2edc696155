//! An IOMMU that answers whatever the input says.

use std::sync::{Arc, Mutex};

use vdpa::testing::{FakeParent, Request};

use super::input::Input;

const REQUESTS: u16 = 0;
const EVENTS: u16 = 1;
/// How many requests it takes in at a time.
const REQUESTS_MAX: usize = 64;

#[derive(Debug)]
pub struct Device {
    pub parent: Arc<FakeParent>,
    pub input: Arc<Mutex<Input>>,
}

impl Device {
    /// Works at what it was asked.
    pub fn work(&self) {
        for _ in 0..REQUESTS_MAX {
            let Some(request) = self.parent.pop(REQUESTS) else {
                return;
            };
            self.answer(&request);
        }
    }

    fn answer(&self, request: &Request) {
        let mut input = self.input.lock().expect("nobody panics");
        let room: u32 = request.writable.iter().map(|segment| segment.len).sum();
        let properties = (room as usize).saturating_sub(4);
        let mut bytes = input.bytes(properties.min(64));
        bytes.resize(properties, 0);
        let lie = input.byte();
        let status = if lie < 0xa0 { 0 } else { input.byte() };
        bytes.extend([status, 0, 0, 0]);
        bytes.truncate(room as usize);
        match lie {
            0xe0..0xe8 => {}
            0xe8..0xf0 => {
                let (id, written) = (input.u32() % 256, input.u32() % 128);
                drop(input);
                self.parent.with_ring(REQUESTS, |ring| {
                    ring.write(request, 0, &bytes);
                    ring.complete(id, written);
                });
            }
            0xf0..0xf4 => {
                let index = input.u32() as u16;
                drop(input);
                self.parent
                    .with_ring(REQUESTS, |ring| ring.set_used_index(index));
            }
            0xf4.. => {
                let written = usize::from(input.byte()).min(bytes.len());
                drop(input);
                self.parent.complete(REQUESTS, request, &bytes[..written]);
            }
            _ => {
                drop(input);
                self.parent.complete(REQUESTS, request, &bytes);
            }
        }
    }

    /// Tells something unasked.
    pub fn tell(&self) {
        let mut input = self.input.lock().expect("nobody panics");
        let len = match input.byte() {
            long @ 0xc0.. => usize::from(long % 32),
            _ => 24,
        };
        let mut bytes = input.bytes(len);
        if let Some(place) = bytes.get_mut(8..12) {
            // Mostly of an endpoint that there is.
            let endpoint = u32::from(input.byte() % 8) * 8;
            place.copy_from_slice(&endpoint.to_le_bytes());
        }
        let lie = input.byte();
        drop(input);
        let Some(request) = self.parent.pop(EVENTS) else {
            return;
        };
        let room: u32 = request.writable.iter().map(|segment| segment.len).sum();
        bytes.truncate(room as usize);
        match lie {
            0xf0.. => {
                let id = u32::from(lie);
                self.parent.with_ring(EVENTS, |ring| ring.complete(id, 24));
                self.parent.interrupt(EVENTS);
            }
            _ => self.parent.complete(EVENTS, &request, &bytes),
        }
    }
}
