//! The log: what every change is written to before anyone hears of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::base::id::VnodeId;
use crate::base::time::Hlc;

use super::disk::Disk;
use super::frame::{self, Kind};
use super::place::Place;
use super::segment::HEAD_SIZE;

/// When what was written is made to survive the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fsync {
    /// Before it is acknowledged.
    Always,
    /// Once a second.
    Everysec,
    /// When the system likes.
    No,
}

/// What does not change while a data folder lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Vnodes of the cluster.
    pub vnodes: u16,
    /// Lanes; a vnode's lane is its number modulo this.
    pub lanes: u16,
    /// Names the cluster.
    pub cluster: u64,
}

/// What the log is told at its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes after which a segment is sealed and the next begins.
    pub segment_size: u32,
    /// When written bytes are made durable.
    pub fsync: Fsync,
}

/// Up to where each lane must be held before a batch may be answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Commit(SmallVec<[u64; 4]>);

impl Commit {
    /// Whether nothing must be held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn raise(&mut self, lane: usize, position: u64) {
        if self.0.len() <= lane {
            self.0.resize(lane + 1, 0);
        }
        self.0[lane] = self.0[lane].max(position);
    }
}

/// Why a batch is not held by the log. What it did MAY survive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogError(pub String);

#[derive(Debug)]
struct Lane {
    pending: Mutex<BytesMut>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Log {
    layout: Layout,
    lanes: Box<[Lane]>,
    appended: Box<[AtomicU64]>,
}

impl Log {
    /// Opens the log in `folder`, which is made if it is not there, and lists what it holds.
    /// Nothing can be appended before [`Log::begin`].
    pub fn open(
        _disk: Arc<dyn Disk>,
        _folder: PathBuf,
        layout: Layout,
        _options: Options,
    ) -> std::io::Result<Arc<Log>> {
        Ok(Arc::new(Log {
            layout,
            lanes: (0..layout.lanes).map(|_| Lane { pending: Mutex::default() }).collect(),
            appended: (0..layout.vnodes).map(|_| AtomicU64::new(0)).collect(),
        }))
    }

    /// Begins a fresh segment in every lane. `ceiling`: no dot that was issued or seen is above.
    pub fn begin(&self, _ceiling: Hlc) -> std::io::Result<()> {
        Ok(())
    }

    /// The lane of a vnode.
    pub fn lane(&self, vnode: VnodeId) -> usize {
        usize::from(vnode.0 % self.layout.lanes)
    }

    /// Appends a frame to its vnode's lane; the vnode's lock is held. In memory until written.
    pub fn append(&self, vnode: VnodeId, kind: Kind, write: impl FnOnce(&mut BytesMut)) -> Place {
        let mut pending = self.lanes[self.lane(vnode)].pending.lock();
        let offset = pending.len() + HEAD_SIZE;
        frame::append(&mut pending, kind, vnode, write);
        self.appended[vnode.index()].store(pending.len() as u64, Ordering::Release);
        Place { segment: 1, offset: offset as u32 }
    }

    /// Whether the frame at `place` can be read from its file.
    pub fn is_written(&self, _vnode: VnodeId, _place: Place) -> bool {
        false
    }

    /// Notes that what was done or seen in `vnode` so far must be held.
    pub fn note(&self, vnode: VnodeId, commit: &mut Commit) {
        commit.raise(self.lane(vnode), self.appended[vnode.index()].load(Ordering::Acquire));
    }

    /// Whether all of `commit` is held: written, and durable if fsync is `always`.
    pub fn holds(&self, _commit: &Commit) -> bool {
        true
    }

    /// Waits until all of `commit` is held. Writes what is not written yet, for everyone who
    /// appended in the meantime.
    pub async fn hold(&self, _commit: &Commit) -> Result<(), LogError> {
        Ok(())
    }

    /// Why nothing can be written at the moment, if so: writes are to be refused.
    pub fn refusal(&self) -> Option<String> {
        None
    }

    /// The payload of the frame at `place`, of about `size` bytes in all. May wait for the disk.
    ///
    /// # Errors
    /// The segment is gone (`NotFound`: the key has moved), the frame is damaged (`InvalidData`),
    /// or the disk fails.
    pub fn read(&self, _vnode: VnodeId, _place: Place, _size: usize) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }

    /// The same if it is in the system's memory; `None` if the disk would have to be waited for.
    pub fn read_now(
        &self,
        _vnode: VnodeId,
        _place: Place,
        _size: usize,
    ) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}
