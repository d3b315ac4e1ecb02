//! What every disk keeps, asked of the real and the simulated one.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::disk::{Disk, RealDisk, reason};
use super::sim_disk::SimDisk;

fn on_every_disk(test: impl Fn(&dyn Disk, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    test(&RealDisk, &folder.path().join("a/b"));
    test(&SimDisk::default(), Path::new("/a/b"));
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn bytes_are_read_as_they_were_written() {
    on_every_disk(|disk, folder| {
        disk.create_folder(folder).unwrap();
        let file = disk.create(&folder.join("file")).unwrap();
        assert_eq!(file.len().unwrap(), 0);
        file.write_at(3, b"abc").unwrap();
        file.write_at(4, b"X").unwrap();
        assert_eq!(file.len().unwrap(), 6);
        let mut buffer = [9; 8];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 6);
        assert_eq!(buffer, *b"\0\0\0aXc\x09\x09");
        assert_eq!(file.read_at(5, &mut buffer).unwrap(), 1);
        assert_eq!(file.read_at(6, &mut buffer).unwrap(), 0);
        assert_eq!(file.read_at(60, &mut buffer).unwrap(), 0);
        assert_eq!(file.read_at(0, &mut []).unwrap(), 0);
        let mut part = [0; 3];
        if let Some(count) = file.read_now(3, &mut part).unwrap() {
            assert_eq!((count, &part), (3, b"aXc"));
        }
        assert_eq!(file.read_now(3, &mut buffer).unwrap(), None, "beyond the end");
        file.sync().unwrap();
        let again = disk.open(&folder.join("file")).unwrap();
        again.write_at(0, b"!").unwrap();
        assert_eq!(file.read_at(0, &mut part).unwrap(), 3);
        assert_eq!(&part, b"!\0\0");
    });
}

#[test]
fn files_are_cut_extended_and_reserved() {
    on_every_disk(|disk, folder| {
        disk.create_folder(folder).unwrap();
        let file = disk.create(&folder.join("file")).unwrap();
        file.reserve(100_000).unwrap();
        assert_eq!(file.len().unwrap(), 0, "the length stays");
        file.write_at(0, b"abcdef").unwrap();
        file.set_len(2).unwrap();
        file.set_len(4).unwrap();
        let mut buffer = [9; 4];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"ab\0\0");
        file.sync().unwrap();
    });
}

#[test]
fn names_come_and_go() {
    on_every_disk(|disk, folder| {
        let (old, new, other) = (folder.join("old"), folder.join("new"), folder.join("other"));
        assert_eq!(kind(disk.list(folder)), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(disk.create(&old)), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(disk.sync_folder(folder)), Some(io::ErrorKind::NotFound));
        disk.create_folder(folder).unwrap();
        disk.create_folder(folder).unwrap();
        assert_eq!(kind(disk.open(&old)), Some(io::ErrorKind::NotFound));
        let file = disk.create(&old).unwrap();
        assert_eq!(kind(disk.create(&old)), Some(io::ErrorKind::AlreadyExists));
        disk.create(&new).unwrap();
        disk.rename(&old, &new).unwrap();
        assert_eq!(disk.list(folder).unwrap(), ["new"]);
        assert_eq!(kind(disk.rename(&old, &new)), Some(io::ErrorKind::NotFound));
        disk.link(&new, &other).unwrap();
        assert_eq!(kind(disk.link(&new, &other)), Some(io::ErrorKind::AlreadyExists));
        let mut names = disk.list(folder).unwrap();
        names.sort();
        assert_eq!(names, ["new", "other"]);
        disk.remove(&new).unwrap();
        assert_eq!(kind(disk.remove(&new)), Some(io::ErrorKind::NotFound));
        file.write_at(0, b"same").unwrap();
        assert_eq!(disk.open(&other).unwrap().len().unwrap(), 4);
        disk.remove(&other).unwrap();
        assert_eq!(file.len().unwrap(), 4, "a removed file lives while it is open");
        disk.sync_folder(folder).unwrap();
        let above = disk.list(folder.parent().unwrap()).unwrap();
        assert_eq!(above, ["b"]);
    });
}

#[test]
fn trimming_gives_reserved_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = RealDisk.create(&path).unwrap();
    file.write_at(0, b"some").unwrap();
    file.reserve(1 << 20).unwrap();
    file.set_len(4).unwrap();
    file.sync().unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert!(metadata.blocks() * 512 < 1 << 16, "{} blocks", metadata.blocks());
}

#[test]
fn the_systems_words_are_found_in_an_error() {
    let missing = RealDisk.open(Path::new("/there/is/no/such")).unwrap_err();
    assert!(missing.to_string().starts_with("/there/is/no/such: "), "{missing}");
    assert_eq!(reason(&missing), "No such file or directory");
    assert_eq!(reason(&io::Error::from_raw_os_error(28)), "No space left on device");
    assert_eq!(reason(&io::Error::other("something else")), "something else");
}
