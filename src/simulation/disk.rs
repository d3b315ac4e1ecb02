//! A simulated disk: a log of frames, the `life` file, and an older image of both.
//!
//! ```text
//!   frames  ■ ■ ■ ■ ■ ■ ■ ■ ■
//!                 ▲     ▲   ▲
//!             synced written appended      a kill loses what was not written, a power cut what
//!                                          was not synced, or any part of it from behind
//! ```

use std::rc::Rc;

use crate::base::id::VnodeId;

use super::facts::Facts;

/// One record in the log, and the facts that it tells.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) vnode: VnodeId,
    pub(super) key: usize,
    /// None: only the shadow learned something.
    pub(super) bytes: Option<Rc<[u8]>>,
    pub(super) facts: Facts,
}

/// What the `life` file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Life {
    pub(super) boot: u16,
    pub(super) start: u32,
    pub(super) clean: bool,
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) frames: Vec<Logged>,
    written: usize,
    synced: usize,
    pub(super) life: Option<Life>,
    /// Whether the machine was down since the process ended.
    pub(super) machine_restarted: bool,
    image: Option<(Vec<Logged>, Option<Life>)>,
}

impl Disk {
    pub(super) fn append(&mut self, logged: Logged) {
        self.frames.push(logged);
    }

    /// write(2): what was appended survives the process.
    pub(super) fn write_out(&mut self) {
        self.written = self.frames.len();
    }

    /// What the file system has, whatever becomes of the process.
    pub(super) fn written(&self) -> &[Logged] {
        &self.frames[..self.written]
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

    /// A copy is taken.
    pub(super) fn take_image(&mut self) {
        self.image = Some((self.frames[..self.synced].to_vec(), self.life));
    }

    pub(super) fn has_image(&self) -> bool {
        self.image.is_some()
    }

    /// The copy takes the disk's place. One that was taken in the life that ended last tells nobody
    /// by its number that it is old: such a copy is only found out if the machine was down.
    pub(super) fn restore_image(&mut self) {
        if let Some((frames, life)) = self.image.clone() {
            let start = |life: Option<Life>| life.map(|life| life.start);
            self.machine_restarted |= start(life) == start(self.life);
            let kept = frames.len();
            self.frames = frames;
            self.life = life;
            self.cut_to(kept);
        }
    }

    /// What would be lost.
    pub(super) fn would_lose(&self, loss: Loss, torn: usize) -> Vec<Logged> {
        let mut after = self.clone();
        match loss {
            Loss::Power => after.cut(torn),
            Loss::Wipe => after.wipe(),
            Loss::Image => after.restore_image(),
        }
        let kept = after.frames.len();
        self.written().get(kept..).unwrap_or(&[]).to_vec()
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
