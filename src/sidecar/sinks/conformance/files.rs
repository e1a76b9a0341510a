//! The receiver of a file destination: a disk that forgets what was not synced, and the lines that lie on it.

use std::path::Path;
use std::sync::Arc;

use forebay::disk::Disk;
use serde_json::Value;
use storage_tests::sim_disk::SimDisk;

use super::clock;
use crate::config::FileConfig;
use crate::sinks::file::FileSink;

const DIRECTORY: &str = "/out";

/// A directory of files.
pub(super) struct Files {
    pub(super) disk: SimDisk,
}

impl Files {
    pub(super) fn new() -> Self {
        Self::seeded(1)
    }

    /// What a power cut leaves depends on the seed.
    pub(super) fn seeded(seed: u64) -> Self {
        Self { disk: SimDisk::new(seed) }
    }

    /// Opened anew: what it knows of the directory it reads there.
    pub(super) fn sink(&self) -> FileSink {
        FileSink::new("archive", FileConfig::new(DIRECTORY), Arc::new(self.disk.clone()), clock())
    }

    /// The lines that count: a file that is set aside has its doubtful ones again in another.
    pub(super) fn lines(&self) -> Vec<Value> {
        let mut names = self.disk.list(Path::new(DIRECTORY)).unwrap();
        names.sort();
        let read = |name: &String| {
            let mut bytes = self.disk.read_live(&Path::new(DIRECTORY).join(name)).unwrap();
            if let Some((_, whole)) = name.split_once(".failed-") {
                bytes.truncate(whole.parse().unwrap());
            }
            bytes
        };
        let text: Vec<u8> = names.iter().flat_map(read).collect();
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let read = |line: &[u8]| {
            serde_json::from_slice(line).unwrap_or_else(|why| panic!("{why}: {:?}", String::from_utf8_lossy(line)))
        };
        lines.map(read).collect()
    }

    /// The ids by which a reader tells repeats apart.
    pub(super) fn ids(&self) -> Vec<String> {
        self.lines().iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
    }
}
