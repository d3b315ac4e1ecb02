//! A small disk of a test's own, for any user: a tmpfs in a mount namespace that a shell keeps open.
//!
//! ```text
//!  test ──stdin──▶ unshare --user --mount sh      mounts tmpfs on DIR, for itself alone
//!    │                      │
//!    └── /proc/PID/root/DIR ┘                     the way in from outside, for the test and nodes
//! ```
//!
//! Nothing is mounted where others could see it, and when the shell ends, so does the disk. Where
//! the kernel forbids namespaces, the test fails and says so: a full disk was not tried.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Volume {
    shell: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    mounted: TempDir,
}

impl Volume {
    /// A fresh disk of so many MiB.
    pub(crate) fn mount(mebibytes: usize) -> Volume {
        let mounted = TempDir::with_prefix("kvorum-disk-").expect("a folder to mount on");
        let mut shell = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("unshare (of util-linux) starts");
        let stdin = shell.stdin.take();
        let stdout = BufReader::new(shell.stdout.take().expect("it is piped"));
        let mut volume = Volume { shell, stdin, stdout, mounted };
        let on = volume.mounted.path().display().to_string();
        volume.say(&format!("mount -t tmpfs -o mode=755,size={mebibytes}m kvorum '{on}'"));
        volume
    }

    /// Runs a line in the shell that holds the disk.
    fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it is open until the end");
        let mut answer = String::new();
        let told = writeln!(stdin, "{line} && echo done").and_then(|()| stdin.flush());
        let heard = told.and_then(|()| self.stdout.read_line(&mut answer));
        assert!(
            heard.is_ok() && answer == "done\n",
            "a small disk cannot be made for the test ({line}): it needs user and mount \
             namespaces (in a container: --cap-add SYS_ADMIN or --security-opt seccomp=unconfined)"
        );
    }

    /// Its top folder, for everyone who may look into our processes.
    pub(crate) fn path(&self) -> PathBuf {
        let inside = self.mounted.path().strip_prefix("/").expect("temporary folders are absolute");
        Path::new("/proc").join(self.shell.id().to_string()).join("root").join(inside)
    }

    /// Takes `mebibytes` away from the others until [`Volume::drop_ballast`].
    pub(crate) fn ballast(&self, name: &str, mebibytes: usize) {
        fs::write(self.path().join(name), vec![b'b'; mebibytes << 20]).expect("there is room");
    }

    /// Gives the room of a ballast back.
    pub(crate) fn drop_ballast(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("the ballast is there");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
