//! The IOMMU driver against an IOMMU that a test plays by VIRTIO 1.2, 5.13.

#[cfg(test)]
mod bring_up;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod domains;
#[cfg(test)]
mod events;
#[cfg(test)]
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod property_test;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod world;
