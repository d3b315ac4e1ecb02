//! Which lives of the other nodes this node has met, where it survives the process.
//!
//! A node whose folder was wiped, or replaced by an older copy, is found out by those that remember
//! it (see [`crate::membership::lives`]). They may all have been started anew since: what they
//! remember must be on their disks.
//!
//! The file `met` in the data folder, replaced as a whole. It is written when a node is met in a
//! life that is news, so about once a start of each:
//!
//! ```text
//! kvorum-met 1
//! n1 start 4 boot 2 mark 00c0ffee00c0ffee
//! n3 start 12 boot 7 mark 5ca1ab1e5ca1ab1e
//! ```
//!
//! Without the file nobody was met yet.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::base::id::{Boot, NodeId};
use crate::membership::lives::{Lives, Met};

use super::life::{at, replace};

const FILE: &str = "met";
const HEAD: &str = "kvorum-met 1";

/// Reads what a folder says.
///
/// # Errors
/// The file cannot be read, or is none of ours.
pub fn read(folder: &Path) -> io::Result<Lives> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Lives::default()),
        Err(error) => return Err(at(&path, &error)),
    };
    parse(&text).ok_or_else(|| {
        let why = format!("{}: not a list of met nodes of this version", path.display());
        io::Error::other(why)
    })
}

/// Makes `lives` what `folder` says; durable when it returns.
///
/// # Errors
/// The folder cannot be written. What stood there stands.
pub fn write(folder: &Path, lives: &Lives) -> io::Result<()> {
    replace(folder, FILE, &format(lives))
}

fn format(lives: &Lives) -> String {
    let line = |(node, met): (NodeId, &Met)| {
        let Met { start, boot, mark } = met;
        format!("{node} start {start} boot {} mark {mark:016x}\n", boot.0)
    };
    let lines: String = lives.iter().map(line).collect();
    format!("{HEAD}\n{lines}")
}

fn parse(text: &str) -> Option<Lives> {
    // A file that was cut off would say less than what is remembered.
    let mut lines = text.strip_suffix('\n')?.split('\n');
    (lines.next()? == HEAD).then_some(())?;
    lines.map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(NodeId, Met)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [node, "start", start, "boot", boot, "mark", mark] = words[..] else { return None };
    let node = NodeId(node.strip_prefix('n')?.parse().ok()?);
    let mark = u64::from_str_radix(mark, 16).ok()?;
    Some((node, Met { start: start.parse().ok()?, boot: Boot(boot.parse().ok()?), mark }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kvorum-met 1\n\
                        n1 start 4 boot 2 mark 00c0ffee00c0ffee\n\
                        n300 start 12 boot 7 mark 5ca1ab1e5ca1ab1e\n";

    fn lives() -> Lives {
        let met = |start, boot, mark| Met { start, boot: Boot(boot), mark };
        Lives::from_iter([
            (NodeId(1), met(4, 2, 0x00C0_FFEE_00C0_FFEE)),
            (NodeId(300), met(12, 7, 0x5CA1_AB1E_5CA1_AB1E)),
        ])
    }

    #[test]
    fn the_format_is_this_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_empty(), "nobody was met");
        write(folder.path(), &lives()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), TEXT);
        assert_eq!(read(folder.path()).unwrap(), lives());
        write(folder.path(), &Lives::default()).unwrap();
        assert!(read(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_was_cut_off_or_is_of_another_kind_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cuts = (0..TEXT.len()).map(|cut| TEXT[..cut].to_owned());
        // Cut off behind a line it looks whole: that is why it is replaced at one blow.
        let cuts = cuts.filter(|text| !text.ends_with('\n'));
        let others =
            ["kvorum-met 2\n", "kvorum-life 3\n", "kvorum-met 1\n\n", "kvorum-met 1\nn1\n"];
        for text in cuts.chain(others.map(str::to_owned)) {
            fs::write(folder.path().join(FILE), &text).unwrap();
            assert!(read(folder.path()).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), text);
        }
    }

    #[test]
    fn what_was_not_finished_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &lives()).unwrap();
        fs::write(folder.path().join("met.new"), "kvorum-met 1\nn1 sta").unwrap();
        assert_eq!(read(folder.path()).unwrap(), lives());
        write(folder.path(), &Lives::default()).unwrap();
        assert!(!folder.path().join("met.new").exists());
    }
}
