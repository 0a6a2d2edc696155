//! Either side of a queue against other people's.

mod bounce;
mod event_window;
mod fake_transport;
mod guest_ram;
mod scatter;
mod text;
mod virtio_drivers;
mod virtio_queue;
