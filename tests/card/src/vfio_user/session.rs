//! What each command of a client means, for any device behind it ([`ServerBackend`]).
//!
//! The crate `vfio_user` has a server of its own, whose trait and types these are. It believes the
//! client: a version without its final zero ends the program, a length decides how much memory is
//! taken, and what follows a refused header is read as the next one. This one checks before it does
//! anything.
//!
//! Source: QEMU, docs/interop/vfio-user.rst; Linux, include/uapi/linux/vfio.h.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use serde_json::{Map, Value, json};
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
};
use vfio_user::{Command, DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend};

use super::connection::{DATA_MAX, FILES_MAX, Request};
use super::fields::Fields;
use super::memory::MAPPINGS_MAX;

/// The version of the protocol.
const MAJOR: u16 = 0;
const MINOR: u16 = 0;

/// The bytes of the structures that say their own length.
const DEVICE_INFO: u32 = 16;
const REGION_INFO: u32 = 32;
const IRQ_INFO: u32 = 16;

/// What a device has, which does not change.
#[derive(Clone, Debug)]
pub(super) struct Description {
    /// The length of each region in bytes, 0 for one that is not there.
    pub(super) regions: Vec<u64>,
    /// Its kinds of interrupts.
    pub(super) interrupts: Vec<IrqInfo>,
}

/// The state of a conversation.
#[derive(Debug)]
pub(super) struct Session {
    description: Description,
    agreed: Agreed,
}

/// Whether client and server have found a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agreed {
    NotYet,
    Yes,
}

impl Session {
    pub(super) fn new(description: Description) -> Self {
        Self {
            description,
            agreed: Agreed::NotYet,
        }
    }

    /// Does what `request` asks of `device`, and returns the answer's body.
    pub(super) fn answer(
        &mut self,
        request: &mut Request,
        device: &mut dyn ServerBackend,
    ) -> Result<Vec<u8>, Errno> {
        request.check()?;
        let command = Command::n(request.command).ok_or(Errno::OPNOTSUPP)?;
        let files = std::mem::take(&mut request.files);
        let takes_files = matches!(command, Command::DmaMap | Command::SetIrqs);
        if !takes_files && !files.is_empty() {
            return Err(Errno::INVAL);
        }
        let first = matches!(command, Command::Version);
        if first != (self.agreed == Agreed::NotYet) {
            return Err(Errno::PROTO);
        }
        let mut body = Fields::of(&request.body);
        match command {
            Command::Version => self.version(body),
            Command::DmaMap => dma_map(body, files, device),
            Command::DmaUnmap => dma_unmap(body, device),
            Command::DeviceGetInfo => self.device_info(body),
            Command::DeviceGetRegionInfo => self.region_info(body),
            Command::GetIrqInfo => self.irq_info(body),
            Command::SetIrqs => set_irqs(body, files, device),
            Command::RegionRead => {
                let access = self.access(&mut body)?;
                body.end()?;
                let mut data = vec![0; access.count];
                let read = device.region_read(access.region, access.offset, &mut data);
                read.map_err(errno)?;
                Ok([access.reply(), data].concat())
            }
            Command::RegionWrite => {
                let access = self.access(&mut body)?;
                let data = body.rest();
                if data.len() != access.count {
                    return Err(Errno::INVAL);
                }
                let written = device.region_write(access.region, access.offset, data);
                written.map_err(errno)?;
                Ok(access.reply())
            }
            Command::DeviceReset => {
                body.end()?;
                device.reset().map_err(errno)?;
                Ok(Vec::new())
            }
            Command::Unknown
            | Command::GetRegionIoFds
            | Command::DmaRead
            | Command::DmaWrite
            | Command::UserDirtyPages => Err(Errno::OPNOTSUPP),
        }
    }

    fn version(&mut self, mut body: Fields<'_>) -> Result<Vec<u8>, Errno> {
        let [major, _minor] = [body.u16()?, body.u16()?];
        let proposed = capabilities(body.rest())?;
        if major != MAJOR {
            return Err(Errno::PROTONOSUPPORT);
        }
        let own = [
            ("max_msg_fds", FILES_MAX.into()),
            ("max_data_xfer_size", DATA_MAX.into()),
            ("max_dma_maps", MAPPINGS_MAX.into()),
        ];
        // No capability that the client does not know.
        let agreed = own
            .into_iter()
            .filter(|(key, _)| proposed.contains_key(*key));
        let agreed: Map<String, Value> = agreed.map(|(key, value)| (key.into(), value)).collect();
        let data = json!({ "capabilities": agreed }).to_string();
        self.agreed = Agreed::Yes;
        let numbers = [MAJOR, MINOR].map(u16::to_ne_bytes).concat();
        Ok([&numbers, data.as_bytes(), b"\0"].concat())
    }

    fn device_info(&self, mut body: Fields<'_>) -> Result<Vec<u8>, Errno> {
        at_least(body.u32()?, DEVICE_INFO)?;
        let flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
        let counts = [
            self.description.regions.len(),
            self.description.interrupts.len(),
        ];
        let [regions, interrupts] =
            counts.map(|count| u32::try_from(count).expect("a handful of each"));
        Ok(words(&[DEVICE_INFO, flags, regions, interrupts]))
    }

    fn region_info(&self, mut body: Fields<'_>) -> Result<Vec<u8>, Errno> {
        at_least(body.u32()?, REGION_INFO)?;
        let [_flags, index] = [body.u32()?, body.u32()?];
        let size = self.region(index)?;
        let flags = match size {
            0 => 0,
            _ => VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
        };
        // Neither capabilities nor a file to map: each access is to be seen.
        let info = words(&[REGION_INFO, flags, index, 0]);
        Ok([info, [size, 0].map(u64::to_ne_bytes).concat()].concat())
    }

    fn irq_info(&self, mut body: Fields<'_>) -> Result<Vec<u8>, Errno> {
        at_least(body.u32()?, IRQ_INFO)?;
        let [_flags, index] = [body.u32()?, body.u32()?];
        let position = usize::try_from(index).ok();
        let info = position.and_then(|position| self.description.interrupts.get(position));
        let info = info.ok_or(Errno::INVAL)?;
        Ok(words(&[IRQ_INFO, info.flags, info.index, info.count]))
    }

    /// The region, offset and length of an access that lies inside of a region.
    fn access(&self, body: &mut Fields<'_>) -> Result<Access, Errno> {
        let (offset, region, count) = (body.u64()?, body.u32()?, body.u32()?);
        let end = offset.checked_add(count.into()).ok_or(Errno::INVAL)?;
        if count > DATA_MAX || end > self.region(region)? {
            return Err(Errno::INVAL);
        }
        Ok(Access {
            region,
            offset,
            count: usize::try_from(count).map_err(|_| Errno::INVAL)?,
        })
    }

    /// The length of a region.
    fn region(&self, index: u32) -> Result<u64, Errno> {
        let index = usize::try_from(index).ok();
        let size = index.and_then(|index| self.description.regions.get(index));
        size.copied().ok_or(Errno::INVAL)
    }
}

/// A place in a region, at most [`DATA_MAX`] bytes long.
struct Access {
    region: u32,
    offset: u64,
    count: usize,
}

impl Access {
    /// How the answer to a read or write begins.
    fn reply(&self) -> Vec<u8> {
        let count = u32::try_from(self.count).expect("it has been 32 bits");
        [
            &self.offset.to_ne_bytes()[..],
            &words(&[self.region, count]),
        ]
        .concat()
    }
}

/// The capabilities that the client proposes. It may propose none.
fn capabilities(data: &[u8]) -> Result<Map<String, Value>, Errno> {
    let Some((end, text)) = data.split_last() else {
        return Ok(Map::new());
    };
    if *end != 0 {
        return Err(Errno::INVAL);
    }
    let data: Value = serde_json::from_slice(text).map_err(|_| Errno::INVAL)?;
    match data.get("capabilities") {
        None if data.is_object() => Ok(Map::new()),
        Some(Value::Object(capabilities)) => Ok(capabilities.clone()),
        _ => Err(Errno::INVAL),
    }
}

fn dma_map(
    mut body: Fields<'_>,
    files: Vec<OwnedFd>,
    device: &mut dyn ServerBackend,
) -> Result<Vec<u8>, Errno> {
    let [_argsz, flags] = [body.u32()?, body.u32()?];
    let [offset, address, size] = [body.u64()?, body.u64()?, body.u64()?];
    body.end()?;
    let mut files = files.into_iter().map(File::from);
    let file = files.next();
    if files.next().is_some() {
        return Err(Errno::INVAL);
    }
    let flags = DmaMapFlags::from_bits_retain(flags);
    let mapped = device.dma_map(flags, offset, address, size, file);
    mapped.map_err(errno)?;
    Ok(Vec::new())
}

fn dma_unmap(mut body: Fields<'_>, device: &mut dyn ServerBackend) -> Result<Vec<u8>, Errno> {
    let [argsz, flags] = [body.u32()?, body.u32()?];
    let [address, size] = [body.u64()?, body.u64()?];
    body.end()?;
    let known = DmaUnmapFlags::from_bits_retain(flags);
    device.dma_unmap(known, address, size).map_err(errno)?;
    let range = [address, size].map(u64::to_ne_bytes).concat();
    Ok([words(&[argsz, flags]), range].concat())
}

fn set_irqs(
    mut body: Fields<'_>,
    files: Vec<OwnedFd>,
    device: &mut dyn ServerBackend,
) -> Result<Vec<u8>, Errno> {
    let [_argsz, flags, index] = [body.u32()?, body.u32()?, body.u32()?];
    let [start, count] = [body.u32()?, body.u32()?];
    body.end()?;
    let files = files.into_iter().map(File::from).collect();
    let set = device.set_irqs(index, flags, start, count, files);
    set.map_err(errno)?;
    Ok(Vec::new())
}

/// The client must have room for an answer.
fn at_least(argsz: u32, needed: u32) -> Result<(), Errno> {
    if argsz < needed {
        return Err(Errno::INVAL);
    }
    Ok(())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what an error is mapped with"
)]
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
