//! File systems of a test's own, under a real kernel: on a loop device, with a power cut that it can be given, and in
//! memory, to be filled.
//!
//! The cut is the file system's own shutdown, without a flush of its journal: what was not written back is gone, and so is
//! the end of the journal. What it does not do is drop the cache of a drive. Needs root, loop devices, `mkfs` and python3;
//! whoever asks hears what is missing.
#![expect(
    clippy::disallowed_methods,
    reason = "stands outside of the process under test: its files are the machine's own"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::aloud;

/// Sparse: it takes what is written.
const IMAGE_BYTES: &str = "1G";

/// The request that ext4 and XFS share (`EXT4_IOC_SHUTDOWN`, `XFS_IOC_GOINGDOWN`), with their flag for "no flush of the log".
const SHUTDOWN: &str = "import fcntl,os,struct,sys;fcntl.ioctl(os.open(sys.argv[1],0),0x8004587d,struct.pack('I',2))";

/// How long whatever holds a mount, or runs on, may take to let go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Mounted. It goes with the value.
#[derive(Debug)]
pub struct LoopDisk {
    kind: &'static str,
    image: PathBuf,
    at: PathBuf,
    _room: tempfile::TempDir,
}

impl LoopDisk {
    /// Makes and mounts one of this kind: `ext4` or `xfs`.
    ///
    /// # Errors
    /// What this machine lacks for it, in words.
    pub fn make(kind: &'static str) -> Result<Self, String> {
        let room = tempfile::Builder::new().prefix("forebay-disk-").tempdir().map_err(|why| why.to_string())?;
        let (image, at) = (room.path().join("image"), room.path().join(kind));
        std::fs::create_dir(&at).map_err(|why| why.to_string())?;
        let disk = Self { kind, image, at, _room: room };
        let image = text(&disk.image);
        let force = if kind == "ext4" { "-F" } else { "-f" };
        run("python3", &["-c", "import fcntl"])?;
        run("truncate", &["-s", IMAGE_BYTES, image])?;
        run(&format!("mkfs.{kind}"), &["-q", force, image])?;
        disk.mount()?;
        Ok(disk)
    }

    /// One of each kind that can be made here. Says aloud which can't, and why.
    #[must_use]
    pub fn each() -> Vec<Self> {
        let made = |kind| {
            let disk = Self::make(kind);
            disk.inspect_err(|why| aloud::not_run(format_args!("power cuts on {kind} under a real kernel: {why}"))).ok()
        };
        ["ext4", "xfs"].into_iter().filter_map(made).collect()
    }

    /// Which file system it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Where it is mounted.
    #[must_use]
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Writes everything back.
    ///
    /// # Panics
    /// When that fails.
    pub fn sync(&self) {
        run("sync", &["-f", text(&self.at)]).expect("a sound disk");
    }

    /// The power goes: under a process that is stopped, which never runs again.
    ///
    /// # Panics
    /// When the process can't be stopped, or the file system not shut down.
    pub fn cut_under(&self, process: u32) {
        freeze(process);
        run("python3", &["-c", SHUTDOWN, text(&self.at)]).expect("the file system can be shut down");
    }

    /// The power comes back: what the cut left is mounted again. Nobody may have anything open there.
    ///
    /// # Panics
    /// When it can't be mounted.
    pub fn power_up(&self) {
        let gone = within(|| run("umount", &[text(&self.at)]).is_ok());
        assert!(gone, "somebody holds {}", self.at.display());
        self.mount().expect("no cut keeps the kernel from mounting it");
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", text(&self.image), text(&self.at)])
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

/// A file system in memory that holds so much and no more. Goes with the value.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one over a directory, which is made where there is none.
    ///
    /// # Errors
    /// What this machine lacks for it, in words.
    pub fn mount(at: &Path, bytes: u64) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|why| why.to_string())?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", text(at)])?;
        Ok(Self { at: at.to_owned() })
    }

    /// Has it hold so much from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn resize(&self, bytes: u64) {
        run("mount", &["-o", &format!("remount,size={bytes}"), text(&self.at)]).expect("it is ours");
    }

    /// Has it take no changes from now on, as the kernel does with a disk that failed. Nobody may have a file open to be written.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn take_no_changes(&self) {
        run("mount", &["-o", "remount,ro", text(&self.at)]).expect("it is ours");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

/// Lazily, where a test that failed has left somebody there. Nothing may be mounted there at all.
fn unmount(at: &Path) {
    let _ = run("umount", &[text(at)]).or_else(|_| run("umount", &["-l", text(at)]));
}

/// Stops every thread of a process. One that ran on after a cut would promise what is not there.
fn freeze(process: u32) {
    run("sh", &["-c", &format!("kill -STOP {process}")]).expect("it is ours");
    let stopped = |task: std::io::Result<std::fs::DirEntry>| {
        let Ok(stat) = std::fs::read_to_string(task.expect("listed").path().join("stat")) else { return true };
        // Behind the name, which may have anything in it. A thread that has ended says nothing any more, either.
        stat.rsplit(") ").next().is_some_and(|state| state.starts_with(['T', 'Z', 'X']))
    };
    let tasks = format!("/proc/{process}/task");
    let all = within(|| std::fs::read_dir(&tasks).expect("it is ours").all(stopped));
    assert!(all, "process {process} does not stop");
}

fn within(mut done: impl FnMut() -> bool) -> bool {
    let steps = PATIENCE.as_millis() / 10;
    (0..steps).any(|_| {
        let done = done();
        if !done {
            thread::sleep(Duration::from_millis(10));
        }
        done
    })
}

/// Runs a program to its end, quietly.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    match ran {
        Err(why) => Err(format!("{program}: {why}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have names of text")
}
