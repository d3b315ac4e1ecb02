//! The disk, as narrow as the engine needs it, so that a simulated one can forget and tear.
//!
//! What the engine may rely on, and no more:
//! * bytes written are read back by this process at once;
//! * bytes written survive the process; they survive the machine once `sync` has returned `Ok`;
//! * a name (created, renamed, linked, removed) survives the machine once `sync_folder` of its
//!   folder has returned `Ok`;
//! * after a failed `sync` nothing is known of what was written since the last good one.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a folder and those above it; fine if it is there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Names in a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes a file that must not be there yet.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that is there, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames over whatever has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// A second name for the same file.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "a file is no collection")]
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Writes all of `bytes`. An error may leave any part of them written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads until `buffer` is full or the file ends; says how much. May wait for the disk.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// The same if it is in memory; `None` if the disk would have to be waited for.
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends (by zeros).
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes sure that writes below `len` will not fail for want of space; the length stays. A
    /// file system that cannot promise that says `Ok`.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// Makes all that was written durable, with the length.
    fn sync(&self) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// An error with the path that it is about.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for Named {}

fn naming(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Named { path: path.to_owned(), error })
}

/// What the system says of an error, without path and number: "No space left on device".
pub fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Named>());
    let text = inner.map_or(error, |named| &named.error).to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text).to_owned()
}

impl Disk for RealDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path).map_err(|error| naming(path, error))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(folder).map_err(|error| naming(folder, error))?;
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        Ok(Arc::new(RealFile(file.map_err(|error| naming(path, error))?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(Arc::new(RealFile(file.map_err(|error| naming(path, error))?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|error| naming(from, error))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to).map_err(|error| naming(to, error))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|error| naming(path, error))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| naming(folder, error))
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let wanted = buffer.len();
        let slices = &mut [io::IoSliceMut::new(buffer)];
        match preadv2(&self.0, slices, offset, ReadWriteFlags::NOWAIT) {
            // Less than was asked for: the file ends, or the rest is not in memory. `read_at`
            // tells which.
            Ok(count) => Ok((count == wanted).then_some(count)),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
