//! What the system tells of a sidecar's process, and what its page of metrics does: nobody needs to look inside.

use std::fs;

use super::sidecar::{Home, Sidecar};
use super::wire::Client;

impl Sidecar<'_> {
    /// The most memory that it has had, in KiB.
    pub(crate) fn resident_kib_max(&self) -> usize {
        self.status_kib("VmHWM:")
    }

    /// Writable memory of its own, in KiB: what the system counts against a limit of its data.
    pub(crate) fn data_kib(&self) -> usize {
        self.status_kib("VmData:")
    }

    fn status_kib(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).expect("it is our child");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says so");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Files and sockets that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process())).expect("it is our child").count()
    }
}

impl Home {
    /// One line of the page of metrics: its number, if it is there.
    pub(crate) fn metric(&self, series: &str) -> Option<u64> {
        let page = Client::connect(self.admin()).and_then(|mut client| client.get("/metrics")).expect("it answers");
        let page = String::from_utf8(page.body).expect("metrics are text");
        let number = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        number.map(|number| number.parse().expect("a number"))
    }
}
