//! Calls of a sidecar that fail or stall, by `strace -e inject`.
//!
//! What always holds: nothing of the tracer outlives its test, however that ends.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use storage_tests::aloud;

use super::sidecar::{Home, Sidecar};
use super::watchdog::Watchdog;

/// Whether this machine lets us trace a process of ours. Says so aloud where it does not.
pub(crate) fn can_trace() -> bool {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"]);
    let can = traced.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !can {
        aloud::not_run("calls that fail in the real binary. There is no strace that may trace a process here.");
    }
    can
}

/// A tracer at work, in a group of its own: what it makes for itself ends with it, whatever becomes of this process.
pub(crate) struct Strace {
    child: Child,
    told: PathBuf,
    watchdog: Watchdog,
}

impl Strace {
    /// Has these calls of the sidecar fail from now on, each as is said with it.
    pub(crate) fn over(sidecar: &Sidecar<'_>, home: &Home, faults: &[(&str, &str)]) -> Self {
        let told = home.path("strace");
        // What an earlier one told is not this one's.
        let _ = fs::remove_file(&told);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq"]);
        for (calls, how) in faults {
            strace.args(["-e", &format!("inject={calls}:{how}")]);
        }
        let calls: Vec<_> = faults.iter().map(|(calls, _)| *calls).collect();
        strace.args(["-e", &format!("trace={}", calls.join(",")), "-p", &sidecar.process().to_string(), "-o"]);
        strace.arg(&told).stdin(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = strace.spawn().expect("it was here a moment ago");
        Self { told, watchdog: Watchdog::over_group(child.id()), child }
    }

    /// How many calls whose names begin so it meddled with.
    pub(crate) fn felt(&self, call: &str) -> usize {
        let told = fs::read_to_string(&self.told).unwrap_or_default();
        let call = format!(" {call}");
        let meddled = |line: &&str| line.ends_with("(INJECTED)") || line.ends_with("(DELAYED)");
        told.lines().filter(meddled).filter(|line| line.contains(&call)).count()
    }

    /// Lets go of the process.
    pub(crate) fn end(self) {}
}

impl Drop for Strace {
    /// By SIGTERM, for a tracer that is killed would take its calls with it. One of its children that it had stopped gets that
    /// only when it goes on.
    fn drop(&mut self) {
        let group = self.child.id();
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM -{group}; kill -CONT -{group}")]).status();
        self.child.wait().expect("it is our child");
        self.watchdog.dismiss();
    }
}
