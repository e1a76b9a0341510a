//! What kills a process when the test's own process is gone.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

/// Watches over one process: nobody else would kill it then.
pub(crate) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    pub(crate) fn over(process: u32) -> Self {
        Self::before(&format!("kill -KILL {process}"))
    }

    /// Over a tracer and all that it made.
    pub(crate) fn over_group(leader: u32) -> Self {
        Self::before(&format!("kill -KILL -{leader}"))
    }

    /// The shell reads from a pipe that ends with this process.
    fn before(last: &str) -> Self {
        let watch = format!("read -r word || {last}");
        let shell = Command::new("sh").args(["-c", &watch]).stdin(Stdio::piped()).spawn().expect("there is a shell");
        Self { shell }
    }

    /// After the process is gone: its number may be another's by now.
    pub(crate) fn dismiss(&mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            pipe.write_all(b"home\n").expect("the shell listens");
        }
        self.shell.wait().expect("it is our child");
    }
}
