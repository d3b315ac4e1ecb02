//! Which life of its node a process is: the number that must never be used twice.
//!
//! Invariant: the number is on disk, synced, before anybody sees it. (A node that came back under
//! its old number could issue a dot again that others hold; see [`crate::base::id::Actor`].)
//!
//! The file `life` in the data folder: `kvorum-life 1\n` and the number in decimal.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::base::id::Boot;

const FILE: &str = "life";
const HEAD: &str = "kvorum-life 1\n";

/// This process's life of its node.
#[derive(Debug)]
pub struct Life {
    folder: PathBuf,
    boot: Boot,
}

impl Life {
    /// Begins a new life in `folder`, which is made if it is not there. The folder is locked for
    /// nobody: two processes on one folder are kept apart by their ports.
    ///
    /// # Errors
    /// The folder cannot be read or written, the file is no life of ours, or 65,535 lives have
    /// been lived. Nothing was begun.
    pub fn begin(folder: &Path) -> io::Result<Life> {
        fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
        let before = read(&folder.join(FILE))?;
        let boot = before.checked_add(1).ok_or_else(|| {
            io::Error::other("this node has begun 65535 lives; give it a new id and folder")
        })?;
        let life = Life { folder: folder.to_owned(), boot: Boot(boot) };
        life.write(Boot(boot))?;
        Ok(life)
    }

    /// Its number.
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Whether there was one before it.
    pub fn is_resumed(&self) -> bool {
        self.boot.0 > 1
    }

    /// Makes another number durable, for a life that begins while the process runs.
    ///
    /// # Errors
    /// The folder cannot be written. The old number stands.
    pub fn write(&self, boot: Boot) -> io::Result<()> {
        let fresh = self.folder.join("life.new");
        let mut file = File::create(&fresh).map_err(|error| at(&fresh, &error))?;
        writeln!(file, "{HEAD}{}", boot.0)?;
        file.sync_all()?;
        fs::rename(&fresh, self.folder.join(FILE))?;
        File::open(&self.folder)?.sync_all()
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> io::Result<u16> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(at(path, &error)),
    };
    let number = text.strip_prefix(HEAD).and_then(|rest| rest.trim_end().parse().ok());
    number.ok_or_else(|| {
        io::Error::other(format!("{}: not a life file of this version", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_is_another_life() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("n1");
        let first = Life::begin(&inner).unwrap();
        assert_eq!((first.boot(), first.is_resumed()), (Boot(1), false));
        first.write(Boot(7)).unwrap();
        let next = Life::begin(&inner).unwrap();
        assert_eq!((next.boot(), next.is_resumed()), (Boot(8), true));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "kvorum-life 2\n3\n", "kvorum-life 1\nx\n", "kvorum-life 1\n65535\n"] {
            fs::write(folder.path().join(FILE), text).unwrap();
            assert!(Life::begin(folder.path()).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), text);
        }
    }
}
