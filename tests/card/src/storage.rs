//! What is behind a block card.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of what a disk says its name is.
pub const ID_BYTES: usize = 20;

/// A disk. Ranges lie on it.
pub trait Storage: Send + fmt::Debug {
    /// Its name (VIRTIO 1.2, 5.2.6).
    fn id(&self) -> [u8; ID_BYTES] {
        id("ifcvf-card")
    }

    /// How many bytes it has: whole sectors of 512.
    fn size(&self) -> u64;

    /// Reads.
    ///
    /// # Errors
    /// Whatever is behind the disk failed.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Waits until what was written is safe.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn flush(&mut self) -> io::Result<()>;
}

/// A disk in memory. Clones are the same disk, for two cards.
#[derive(Clone)]
pub struct RamDisk(Arc<Mutex<Vec<u8>>>);

impl RamDisk {
    /// A disk of so many sectors that are zero.
    #[must_use]
    pub fn new(sectors: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![0; sectors * 512])))
    }

    /// All that is on it.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.with(|bytes| bytes.clone())
    }

    fn with<R>(&self, work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works on a range, if it lies on the disk.
    fn range(&self, offset: u64, len: usize, work: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|bytes| {
            let range = bytes.get_mut(start..).and_then(|rest| rest.get_mut(..len));
            let range = range.ok_or_else(|| io::Error::other("beyond the end"))?;
            work(range);
            Ok(())
        })
    }
}

impl Storage for RamDisk {
    fn size(&self) -> u64 {
        self.with(|bytes| bytes.len() as u64)
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.range(offset, bytes.len(), |range| bytes.copy_from_slice(range))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.range(offset, bytes.len(), |range| range.copy_from_slice(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for RamDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RamDisk({} bytes)", self.size())
    }
}

/// A disk in a file, as long as it was at the beginning.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size: u64,
    id: [u8; ID_BYTES],
}

impl FileDisk {
    /// The file as a disk of this name, of which the first 20 bytes count; what is beyond its last
    /// whole sector is left alone.
    ///
    /// # Errors
    /// Its length cannot be found.
    pub fn new(file: File, name: &str) -> io::Result<Self> {
        let size = file.metadata()?.len() / 512 * 512;
        let id = id(name);
        Ok(Self { file, size, id })
    }
}

impl Storage for FileDisk {
    fn id(&self) -> [u8; ID_BYTES] {
        self.id
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A name with zeroes behind it.
fn id(name: &str) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    for (to, from) in id.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    id
}
