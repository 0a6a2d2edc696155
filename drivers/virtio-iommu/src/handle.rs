//! An IOMMU as those see it who look for one.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use iommu::Iommu;
use vdpa::dma::IsolationUnit;
use vdpa::platform::IommuDomain;
use vdpa::tree::{Inspect, Report};

use crate::domain::Domain;
use crate::shared::Shared;

/// An IOMMU, for those who look for one.
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<Shared>);

impl Iommu for Handle {
    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn covers(&self, unit: &IsolationUnit) -> bool {
        !self.0.endpoints_of(unit).is_empty()
    }

    fn domain(&self, unit: &Arc<IsolationUnit>) -> Option<Arc<dyn IommuDomain>> {
        let endpoints = self.0.endpoints_of(unit);
        if endpoints.is_empty() || !self.0.is_alive() {
            return None;
        }
        let mut reserved = Vec::new();
        let mut has_messages = true;
        for endpoint in &endpoints {
            let of_endpoint = self.0.reserved(*endpoint, unit).ok()?;
            has_messages &= of_endpoint.has_messages;
            reserved.extend(of_endpoint.ranges);
        }
        let domain = Domain::new(&self.0, endpoints, reserved, has_messages)?;
        Some(Arc::new(domain))
    }

    fn report(&self) -> Report {
        Inspect::report(&*self.0)
    }
}
