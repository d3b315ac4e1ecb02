//! A simulated disk: a log of frames, the files `life` and `met`, and an older image of them.
//!
//! ```text
//!   frames  ■ ■ ■ ■ ■ ■ ■ ■ ■
//!                 ▲     ▲   ▲
//!             synced written appended      a kill loses what was not written, a power cut what
//!                                          was not synced, or any part of it from behind
//! ```

use std::rc::Rc;

use crate::base::id::{Boot, VnodeId};
use crate::membership::lives::{Lives, Met, Starts};
use crate::storage::snapshot::BOOT_LEAP;

use super::facts::{Facts, Writes};

/// One record in the log, and the facts that it tells.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) vnode: VnodeId,
    pub(super) key: usize,
    /// None: only the shadow learned something.
    pub(super) bytes: Option<Rc<[u8]>>,
    pub(super) facts: Facts,
    /// Whether the key was forgotten.
    pub(super) gone: bool,
}

/// What the `life` file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Life {
    pub(super) boot: Boot,
    pub(super) starts: Starts,
    pub(super) clean: bool,
    pub(super) whole: bool,
}

impl Life {
    /// None was lived yet.
    pub(super) fn none() -> Life {
        Life { boot: Boot(0), starts: Starts::unmarked(0), clean: true, whole: true }
    }

    pub(super) fn own(&self) -> Met {
        Met { start: self.starts.last(), boot: self.boot, mark: self.starts.mark() }
    }
}

/// A copy of a disk.
#[derive(Clone, Debug)]
struct Image {
    frames: Vec<Logged>,
    life: Option<Life>,
    met: Lives,
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) frames: Vec<Logged>,
    written: usize,
    synced: usize,
    pub(super) life: Option<Life>,
    /// What the `met` file says.
    pub(super) met: Lives,
    /// Whether the machine was down since the process ended.
    pub(super) machine_restarted: bool,
    image: Option<Image>,
    /// Whether it was wiped or is an older copy, and the node has not been told yet.
    pub(super) unaware: bool,
}

impl Disk {
    pub(super) fn append(&mut self, logged: Logged) {
        self.frames.push(logged);
    }

    /// write(2): what was appended survives the process.
    pub(super) fn write_out(&mut self) {
        self.written = self.frames.len();
    }

    /// fsync(2). Whether there was anything to sync.
    pub(super) fn sync(&mut self) -> bool {
        let before = std::mem::replace(&mut self.synced, self.written);
        before != self.written
    }

    /// The process ended in order: all is synced, and it said so.
    pub(super) fn end_cleanly(&mut self) {
        self.sync();
        if let Some(life) = &mut self.life {
            life.clean = true;
        }
    }

    /// The process is gone.
    pub(super) fn kill(&mut self) {
        self.frames.truncate(self.written);
    }

    /// How many frames a power cut can take.
    pub(super) fn unsynced(&self) -> usize {
        self.written - self.synced
    }

    /// The power is gone, and with it the last `torn` of what was not synced.
    pub(super) fn cut(&mut self, torn: usize) {
        self.kill();
        self.machine_restarted = true;
        self.cut_to(self.frames.len() - torn.min(self.unsynced()));
    }

    fn cut_to(&mut self, kept: usize) {
        self.frames.truncate(kept);
        self.written = kept;
        self.synced = kept;
    }

    /// Everything is gone, `life` and image too.
    pub(super) fn wipe(&mut self) {
        *self = Disk::default();
    }

    /// A copy is taken: a snapshot, or of the files as they are.
    pub(super) fn take_image(&mut self, snapshot: bool) {
        let (frames, life) = (self.frames[..self.synced].to_vec(), self.life.clone());
        self.image = Some(match life {
            Some(life) if snapshot => {
                let boot = Boot(life.boot.0.saturating_add(BOOT_LEAP));
                let life = Some(Life { boot, clean: false, whole: false, ..life });
                Image { frames, life, met: Lives::default() }
            }
            life => Image { frames, life, met: self.met.clone() },
        });
    }

    /// Whether there is a copy.
    pub(super) fn has_image(&self) -> bool {
        self.image.is_some()
    }

    /// The life that the copy is of, unless it tells by itself that it is one.
    pub(super) fn image_of(&self) -> Option<Met> {
        let life = self.image.as_ref()?.life.as_ref();
        life.filter(|life| life.whole).map(Life::own)
    }

    /// The copy takes the disk's place.
    pub(super) fn restore_image(&mut self) {
        if let Some(Image { frames, life, met }) = self.image.clone() {
            (self.frames, self.life, self.met) = (frames, life, met);
            self.cut_to(self.frames.len());
        }
    }

    /// The writes on `key` of which the first `frames` frames tell.
    fn seen_in(&self, key: usize, frames: usize) -> Writes {
        let frames = self.frames[..frames].iter().filter(|logged| logged.key == key);
        frames.fold(0, |seen, logged| if logged.gone { 0 } else { seen | logged.facts.seen })
    }

    /// The writes on `key` that are in the log.
    pub(super) fn seen(&self, key: usize) -> Writes {
        self.seen_in(key, self.written)
    }

    /// How many frames would be left.
    pub(super) fn kept_after(&self, loss: Loss, torn: usize) -> usize {
        let image = self.image.as_ref().map_or(0, |image| image.frames.len());
        match loss {
            Loss::Power => self.written - torn.min(self.unsynced()),
            Loss::Wipe => 0,
            Loss::Image => image.min(self.written),
        }
    }

    /// The writes on `key` that would be lost.
    pub(super) fn would_lose(&self, key: usize, loss: Loss, torn: usize) -> Writes {
        self.seen(key) & !self.seen_in(key, self.kept_after(loss, torn))
    }
}

/// How a disk loses what was written to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// A power cut: what was not synced, or part of it.
    Power,
    /// Everything.
    Wipe,
    /// Everything since an image was taken.
    Image,
}
