//! The guest's memory as the front-end shares it: files that are mapped here.

use std::fs::File;
use std::io;
use std::ptr::NonNull;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use virtq::DmaAddr;
use virtq::device::{Direct, Region};
use vm_memory::FileOffset;
use vm_memory::mmap::MmapRegion;

/// Every region of one memory table.
#[derive(Debug)]
pub(super) struct GuestMemory {
    direct: Direct,
    ranges: Vec<UserRange>,
    /// What `direct` points into.
    _mappings: Vec<MmapRegion>,
}

/// Where the front-end itself has a region.
#[derive(Debug)]
struct UserRange {
    user: u64,
    guest: u64,
    len: u64,
}

impl GuestMemory {
    /// Maps the regions of `table`, each from its file.
    pub(super) fn map(table: &[VhostUserMemoryRegion], files: Vec<File>) -> io::Result<Self> {
        let mappings: Vec<MmapRegion> = table
            .iter()
            .zip(files)
            .map(|(region, file)| {
                let size = usize::try_from(region.memory_size).map_err(io::Error::other)?;
                let file = FileOffset::new(file, region.mmap_offset);
                MmapRegion::from_file(file, size).map_err(io::Error::other)
            })
            .collect::<io::Result<_>>()?;
        let regions = table
            .iter()
            .zip(&mappings)
            .map(|(region, mapping)| {
                let ptr = NonNull::new(mapping.as_ptr());
                Ok(Region {
                    addr: DmaAddr(region.guest_phys_addr),
                    ptr: ptr.ok_or_else(|| io::Error::other("mapped at 0"))?,
                    len: mapping.size(),
                })
            })
            .collect::<io::Result<_>>()?;
        #[expect(
            unsafe_code,
            reason = "only this module knows how long the mappings stay"
        )]
        // SAFETY: the mappings are readable and writable, live as long as the value that holds them
        // and `direct`, and are reached through nothing else. They were checked to lie inside their
        // files, which QEMU seals against shrinking.
        let direct = unsafe { Direct::new(regions) }.map_err(io::Error::other)?;
        Ok(Self {
            direct,
            ranges: table.iter().map(UserRange::of).collect(),
            _mappings: mappings,
        })
    }

    /// The memory by the addresses that the guest uses.
    pub(super) fn direct(&self) -> &Direct {
        &self.direct
    }

    /// What the guest calls the byte that the front-end has at `user` in its own address space.
    pub(super) fn guest_address(&self, user: u64) -> Option<DmaAddr> {
        self.ranges.iter().find_map(|range| {
            let offset = user.checked_sub(range.user)?;
            let inside = offset < range.len;
            // Does not wrap: the protocol's crate has checked the region's end.
            inside.then(|| DmaAddr(range.guest + offset))
        })
    }
}

impl UserRange {
    fn of(region: &VhostUserMemoryRegion) -> Self {
        Self {
            user: region.user_addr,
            guest: region.guest_phys_addr,
            len: region.memory_size,
        }
    }
}
