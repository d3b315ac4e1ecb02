//! Which life of its node a process is: the number that must never be used twice.
//!
//! Invariant: the number is on disk, synced, before anybody sees it. (A node that came back under
//! its old number could issue a dot again that others hold; see [`crate::base::id::Actor`].) After
//! a clean shutdown nothing was forgotten, and the old life goes on.
//!
//! The file `life` in the data folder, replaced as a whole; beside it `lock`, which the process
//! holds locked and which names it:
//!
//! ```text
//! kvorum-life 2
//! boot 7
//! start 12                   how often the folder was started on; never the same twice
//! clean no
//! machine 7cd9b1c5-…          the machine's own boot id, when the log was last settled
//! vnodes 256
//! lanes 4
//! cluster 00c0ffee00c0ffee
//! ```
//!
//! Format 1 was its head and the number in decimal; there was no log yet.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use crate::base::id::Boot;

use super::log::Layout;

const FILE: &str = "life";
const LOCK: &str = "lock";
const HEAD: &str = "kvorum-life 2\n";
const HEAD_1: &str = "kvorum-life 1\n";

/// Names this boot of the machine.
const MACHINE: &str = "/proc/sys/kernel/random/boot_id";

/// How long another process may take to let go of the folder: one that was told to end, or one
/// that only looks whether the folder is in use.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);

/// How the life before ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Past {
    /// All that it had written was synced, and it said so.
    pub clean: bool,
    /// The machine has been down since: what was not synced may be lost.
    pub machine_restarted: bool,
}

impl Past {
    /// There was no life before.
    pub const NONE: Past = Past { clean: true, machine_restarted: false };
}

/// What a data folder says of the last life lived in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lived {
    /// Its number.
    pub boot: Boot,
    /// How often the folder was started on. A copy of an older folder comes back with a number
    /// that the peers know already, and so is found out although its end was clean.
    pub start: u32,
    /// Whether it ended with everything written and synced.
    pub clean: bool,
    /// The machine's boot id when the log was last settled; empty if it was not known.
    pub machine: String,
    /// The folder's layout; `None` in format 1.
    pub layout: Option<Layout>,
}

/// This process's life of its node. Holds the folder's lock.
#[derive(Debug)]
pub struct Life {
    folder: PathBuf,
    lived: Mutex<Lived>,
    layout: Layout,
    past: Past,
    resumed: bool,
    _lock: File,
}

impl Life {
    /// Begins a life in `folder`, which is made if it is not there, and locks the folder against
    /// other processes. The lanes are those the folder was made with, whatever is `wanted`.
    ///
    /// # Errors
    /// The folder cannot be read or written, another process uses it, it is not this cluster's, the
    /// file is no life of ours or is missing beside a log, or 65,535 lives have been lived. Nothing
    /// was begun.
    pub fn begin(folder: &Path, wanted: Layout) -> io::Result<Life> {
        fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
        let lock = lock(folder)?;
        let before = read(folder)?;
        let layout = layout_of(folder, before.as_ref(), wanted)?;
        let past = before.as_ref().map_or(Past::NONE, past_of);
        let boot = match &before {
            None => Boot(1),
            Some(lived) if lived.clean => lived.boot,
            Some(lived) => next(lived.boot)?,
        };
        let machine = before.as_ref().map_or_else(machine, |lived| lived.machine.clone());
        let start = before.as_ref().map_or(0, |lived| lived.start).saturating_add(1);
        let lived = Lived { boot, start, clean: false, machine, layout: Some(layout) };
        write(folder, &lived)?;
        Ok(Life {
            folder: folder.to_owned(),
            lived: Mutex::new(lived),
            layout,
            past,
            resumed: before.is_some(),
            _lock: lock,
        })
    }

    /// Its number.
    pub fn boot(&self) -> Boot {
        self.lived.lock().boot
    }

    /// How often the folder was started on, this time included.
    pub fn start(&self) -> u32 {
        self.lived.lock().start
    }

    /// Whether the life before ended with everything written and synced, or there was none.
    pub fn was_clean(&self) -> bool {
        self.past.clean
    }

    /// Whether the machine has been down since the life before began; so what it had not synced may
    /// be lost.
    pub fn machine_restarted(&self) -> bool {
        self.past.machine_restarted
    }

    /// How the life before ended, for the recovery.
    pub fn past(&self) -> Past {
        self.past
    }

    /// Whether there was a life before it.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// What the folder was made with.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What the folder says of it.
    pub fn lived(&self) -> Lived {
        self.lived.lock().clone()
    }

    /// Notes that the log has been recovered and is durable as it stands. Until then a machine that
    /// was restarted before this life counts as restarted in the next one too: a recovery that was
    /// cut short must judge torn tails as this one did.
    ///
    /// # Errors
    /// The folder cannot be written. The next recovery takes more for torn than it would have to.
    pub fn settle(&self) -> io::Result<()> {
        self.replace(|lived| lived.machine = machine())
    }

    /// Makes other numbers durable, for a life that begins while the process runs.
    ///
    /// # Errors
    /// The folder cannot be written. The old numbers stand.
    pub fn write(&self, boot: Boot, start: u32) -> io::Result<()> {
        self.replace(|lived| (lived.boot, lived.start) = (boot, start))
    }

    /// Notes that all is written and synced, and that nothing will be changed any more: the next
    /// process goes on with this life.
    ///
    /// # Errors
    /// The folder cannot be written. The next process begins another life.
    pub fn end_cleanly(&self) -> io::Result<()> {
        self.replace(|lived| lived.clean = true)
    }

    fn replace(&self, change: impl FnOnce(&mut Lived)) -> io::Result<()> {
        let mut lived = self.lived.lock();
        let mut fresh = lived.clone();
        change(&mut fresh);
        write(&self.folder, &fresh)?;
        *lived = fresh;
        Ok(())
    }
}

/// Reads what a folder says of its last life; `None` if there was none. Locks and changes nothing.
///
/// # Errors
/// The file cannot be read, or is no life of ours.
pub fn read(folder: &Path) -> io::Result<Option<Lived>> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path, &error)),
    };
    let lived = parse(&text).ok_or_else(|| {
        io::Error::other(format!("{}: not a life file of this version", path.display()))
    })?;
    Ok(Some(lived))
}

/// Makes `lived` what `folder` says of its last life; durable when it returns.
///
/// # Errors
/// The folder cannot be written. What stood there stands.
pub fn write(folder: &Path, lived: &Lived) -> io::Result<()> {
    let fresh = folder.join("life.new");
    let mut file = File::create(&fresh).map_err(|error| at(&fresh, &error))?;
    file.write_all(format(lived).as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

/// How a life ended, seen from this boot of the machine.
pub fn past_of(lived: &Lived) -> Past {
    let machine = machine();
    let same = !machine.is_empty() && lived.machine == machine;
    Past { clean: lived.clean, machine_restarted: !same }
}

/// Whether a process uses the folder right now.
pub fn is_in_use(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK)) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// This boot of the machine; empty if nobody says.
fn machine() -> String {
    fs::read_to_string(MACHINE).map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn next(boot: Boot) -> io::Result<Boot> {
    boot.0.checked_add(1).map(Boot).ok_or_else(|| {
        io::Error::other("this node has begun 65535 lives; give it a new id and folder")
    })
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Locks the folder for as long as the file is open.
fn lock(folder: &Path) -> io::Result<File> {
    let path = folder.join(LOCK);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|error| at(&path, &error))?;
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok_and(|read| read > 0);
            let who = if known { format!(" (process {})", holder.trim()) } else { String::new() };
            let folder = folder.display();
            return Err(io::Error::new(
                ErrorKind::ResourceBusy,
                format!("{folder} is in use by another kvorum{who}; two cannot share a folder"),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // The name is for people only: nothing is lost with it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The layout that a folder of this cluster has.
fn layout_of(folder: &Path, before: Option<&Lived>, wanted: Layout) -> io::Result<Layout> {
    let folder_name = folder.display();
    let Some(lived) = before else {
        if folder.join("log").join(super::segment::lane_folder(0)).exists() {
            return Err(io::Error::other(format!(
                "{folder_name} holds a log but no life file, so which writes were this node's is \
                 not known; put the file back, or begin with an empty folder"
            )));
        }
        return Ok(wanted);
    };
    let Some(made) = lived.layout else { return Ok(wanted) };
    if made.vnodes != wanted.vnodes {
        return Err(io::Error::other(format!(
            "{folder_name} was made for {} vnodes, and the cluster has {}; their number cannot be \
             changed",
            made.vnodes, wanted.vnodes
        )));
    }
    if made.cluster != wanted.cluster {
        return Err(io::Error::other(format!(
            "{folder_name} belongs to cluster {:016x}, and this node to cluster {:016x}; a cluster \
             is known by its name and secret",
            made.cluster, wanted.cluster
        )));
    }
    Ok(made)
}

fn format(lived: &Lived) -> String {
    let Lived { boot, start, clean, machine, layout } = lived;
    let clean = if *clean { "yes" } else { "no" };
    let mut text =
        format!("{HEAD}boot {}\nstart {start}\nclean {clean}\nmachine {machine}\n", boot.0);
    if let Some(Layout { vnodes, lanes, cluster }) = layout {
        text += &format!("vnodes {vnodes}\nlanes {lanes}\ncluster {cluster:016x}\n");
    }
    text
}

fn parse(text: &str) -> Option<Lived> {
    if let Some(number) = text.strip_prefix(HEAD_1) {
        let boot = Boot(number.trim_end().parse().ok()?);
        // Every start was a life then.
        let start = u32::from(boot.0);
        return Some(Lived { boot, start, clean: false, machine: String::new(), layout: None });
    }
    let rest = text.strip_prefix(HEAD)?;
    let word = |name: &str| {
        let mut lines = rest.lines().filter_map(|line| line.split_once(' '));
        lines.find_map(|(field, word)| (field == name).then_some(word))
    };
    let layout = Layout {
        vnodes: word("vnodes")?.parse().ok().filter(|vnodes| *vnodes > 0)?,
        lanes: word("lanes")?.parse().ok().filter(|lanes| *lanes > 0)?,
        cluster: u64::from_str_radix(word("cluster")?, 16).ok()?,
    };
    Some(Lived {
        boot: Boot(word("boot")?.parse().ok()?),
        start: word("start")?.parse().ok()?,
        clean: match word("clean")? {
            "yes" => true,
            "no" => false,
            _ => return None,
        },
        machine: word("machine")?.to_owned(),
        layout: Some(layout),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Layout = Layout { vnodes: 256, lanes: 4, cluster: 0xC0FFEE };

    fn begin(folder: &Path) -> io::Result<Life> {
        Life::begin(folder, WANTED)
    }

    #[test]
    fn a_start_without_a_clean_end_is_another_life() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("n1");
        let first = begin(&inner).unwrap();
        assert_eq!((first.boot(), first.is_resumed()), (Boot(1), false));
        assert!(first.was_clean() && !first.machine_restarted());
        first.write(Boot(7), 7).unwrap();
        assert_eq!(first.boot(), Boot(7));
        drop(first);
        let next = begin(&inner).unwrap();
        assert_eq!((next.boot(), next.is_resumed()), (Boot(8), true));
        assert!(!next.was_clean() && !next.machine_restarted());
    }

    #[test]
    fn a_life_that_ended_cleanly_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let first = begin(folder.path()).unwrap();
        first.end_cleanly().unwrap();
        drop(first);
        let next = begin(folder.path()).unwrap();
        assert_eq!((next.boot(), next.is_resumed(), next.was_clean()), (Boot(1), true, true));
        drop(next);
        let after = begin(folder.path()).unwrap();
        assert_eq!((after.boot(), after.was_clean()), (Boot(2), false), "the mark was taken back");
    }

    #[test]
    fn another_boot_of_the_machine_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        drop(begin(folder.path()).unwrap());
        let mut lived = read(folder.path()).unwrap().unwrap();
        lived.machine = "another".into();
        write(folder.path(), &lived).unwrap();
        let life = begin(folder.path()).unwrap();
        assert!(life.machine_restarted());
        drop(life);
        let life = begin(folder.path()).unwrap();
        assert!(life.machine_restarted(), "the life before never settled the log");
        life.settle().unwrap();
        drop(life);
        assert!(!begin(folder.path()).unwrap().machine_restarted());
        lived.machine = String::new();
        write(folder.path(), &lived).unwrap();
        assert!(begin(folder.path()).unwrap().machine_restarted(), "not known: the worse");
    }

    #[test]
    fn two_processes_cannot_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_in_use(folder.path()));
        let first = begin(folder.path()).unwrap();
        assert!(is_in_use(folder.path()));
        let why = begin(folder.path()).unwrap_err().to_string();
        assert!(why.contains(&format!("(process {})", std::process::id())), "{why}");
        drop(first);
        assert!(!is_in_use(folder.path()));
        assert_eq!(begin(folder.path()).unwrap().boot(), Boot(2), "the refused one began nothing");
    }

    #[test]
    fn a_folder_of_another_cluster_is_refused_and_its_lanes_stay() {
        let folder = tempfile::tempdir().unwrap();
        drop(begin(folder.path()).unwrap());
        let before = fs::read_to_string(folder.path().join(FILE)).unwrap();
        let why = |wanted| Life::begin(folder.path(), wanted).unwrap_err().to_string();
        let vnodes = why(Layout { vnodes: 64, ..WANTED });
        assert!(vnodes.contains("256 vnodes") && vnodes.contains("has 64"), "{vnodes}");
        let cluster = why(Layout { cluster: 0xBEEF, ..WANTED });
        let named = cluster.contains("0000000000c0ffee") && cluster.contains("000000000000beef");
        assert!(named, "{cluster}");
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), before);
        let life = Life::begin(folder.path(), Layout { lanes: 9, ..WANTED }).unwrap();
        assert_eq!(life.layout(), WANTED);
    }

    #[test]
    fn format_1_is_read_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "kvorum-life 1\n41\n").unwrap();
        let life = begin(folder.path()).unwrap();
        assert_eq!((life.boot(), life.is_resumed(), life.layout()), (Boot(42), true, WANTED));
        assert!(life.machine_restarted());
        life.settle().unwrap();
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
        let machine = machine();
        assert_eq!(
            text,
            format!(
                "kvorum-life 2\nboot 42\nstart 42\nclean no\nmachine {machine}\nvnodes 256\nlanes 4\n\
                 cluster 0000000000c0ffee\n"
            )
        );
    }

    #[test]
    fn a_log_without_a_life_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("log/lane-00")).unwrap();
        assert!(begin(folder.path()).unwrap_err().to_string().contains("no life file"));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let layout = "vnodes 256\nlanes 4\ncluster 0000000000c0ffee\n";
        let texts = [
            "".to_owned(),
            "kvorum-life 3\n3\n".to_owned(),
            "kvorum-life 1\nx\n".to_owned(),
            "kvorum-life 1\n65535\n".to_owned(),
            format!("{HEAD}boot 1\nstart 1\nclean no\nmachine m\n"),
            format!("{HEAD}boot x\nstart 1\nclean no\nmachine m\n{layout}"),
            format!("{HEAD}boot 1\nstart 1\nclean maybe\nmachine m\n{layout}"),
            format!("{HEAD}boot 65535\nstart 1\nclean no\nmachine m\n{layout}"),
            format!("{HEAD}boot 1\nstart 1\nclean no\nmachine m\nvnodes 256\nlanes 0\ncluster 1\n"),
        ];
        for text in texts {
            fs::write(folder.path().join(FILE), &text).unwrap();
            assert!(begin(folder.path()).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), text);
        }
    }
}
