//! A disk in memory whose one roll of the dice is known, so that a log on it has the same bytes every time: for golden
//! files.

use forebay::disk::mem::MemDisk;
use forebay::disk::{Disk, File, Lock, Space};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The id of every log that is made on such a disk: its bytes are 0, 1, 2, … on disk.
pub const ENTROPY: u128 = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;

/// See the file's header.
pub struct KnownEntropy(pub MemDisk);

impl Disk for KnownEntropy {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.open(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_dir(from, to)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.remove_dir(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.0.lock(path, holder)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.space(dir)
    }
    fn entropy(&self) -> u128 {
        ENTROPY
    }
}
