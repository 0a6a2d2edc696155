//! From a vDPA device to a virtio driver: binding, bring-up, queues, trouble and removal.

mod binding;
mod bring_up;
mod trouble;
mod world;
