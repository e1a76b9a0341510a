//! A disk in memory, for the tests and examples of those who embed the log.
//!
//! It never fails and never forgets while one clone of it lives: syncs do nothing, and there is no crash. For crashes
//! and faults there is the simulated disk of `storage-tests`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Disk, File, Lock, Space, real};

/// What [`Disk::space`] says there is in all: enough for any test.
const SPACE_BYTES: u64 = 1 << 40;

/// A disk in memory. Clones are the same disk, so a log can be closed and opened again.
///
/// ```
/// use forebay::disk::{Disk, mem::MemDisk};
/// let disk = MemDisk::new();
/// disk.create_dir("data".as_ref())?;
/// disk.create("data/file".as_ref())?.set_len(3)?;
/// assert_eq!(disk.clone().open("data/file".as_ref())?.len()?, 3);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Default)]
pub struct MemDisk {
    shared: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    dirs: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Arc<MemFile>>,
    /// Path of the lock file to the holder's text.
    locks: HashMap<PathBuf, String>,
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for MemDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut names = self.names();
        if names.has_dir(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        names.check_parent(path)?;
        match names.files.entry(path.to_owned()) {
            Entry::Occupied(_) => Err(ErrorKind::AlreadyExists.into()),
            Entry::Vacant(entry) => Ok(Arc::clone(entry.insert(Arc::default())) as Arc<dyn File>),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let names = self.names();
        if names.has_dir(path) {
            return Err(ErrorKind::IsADirectory.into());
        }
        Ok(Arc::clone(names.files.get(path).ok_or(ErrorKind::NotFound)?) as Arc<dyn File>)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self.names();
        names.check_dir(dir)?;
        let in_dir = names.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(in_dir.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut names = self.names();
        if dir.ancestors().any(|above| names.files.contains_key(above)) {
            return Err(ErrorKind::NotADirectory.into());
        }
        names.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        if names.has_dir(to) {
            return Err(ErrorKind::IsADirectory.into());
        }
        names.check_parent(to)?;
        let file = names.files.remove(from).ok_or(ErrorKind::NotFound)?;
        names.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        names.check_dir(from)?;
        names.check_parent(to)?;
        if to.starts_with(from) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if names.files.contains_key(to) {
            return Err(ErrorKind::NotADirectory.into());
        }
        if names.below(to).next().is_some() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let moved = |path: &Path| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.to_owned(),
        };
        names.dirs = names.dirs.iter().map(|dir| moved(dir)).collect();
        names.files = std::mem::take(&mut names.files).into_iter().map(|(path, file)| (moved(&path), file)).collect();
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut names = self.names();
        if names.files.contains_key(dir) {
            return Err(ErrorKind::NotADirectory.into());
        }
        names.dirs.retain(|path| !path.starts_with(dir));
        names.files.retain(|path, _| !path.starts_with(dir));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        if names.has_dir(path) {
            return Err(ErrorKind::IsADirectory.into());
        }
        names.files.remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.names().check_dir(dir)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        let mut names = self.names();
        names.check_parent(path)?;
        if let Some(holder) = names.locks.get(path) {
            return Err(io::Error::new(ErrorKind::WouldBlock, format!("held by {holder}")));
        }
        let file = names.files.entry(path.to_owned()).or_default();
        *file.bytes_mut() = holder.as_bytes().to_vec();
        names.locks.insert(path.to_owned(), holder.to_owned());
        Ok(Box::new(MemLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let names = self.names();
        names.check_dir(dir)?;
        let used: u64 = names.files.values().map(|file| file.bytes().len() as u64).sum();
        Ok(Space { total: SPACE_BYTES, free: SPACE_BYTES.saturating_sub(used) })
    }

    fn entropy(&self) -> u128 {
        real::entropy()
    }
}

impl Names {
    fn has_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || self.dirs.contains(path)
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        match (self.has_dir(dir), self.files.contains_key(dir)) {
            (true, _) => Ok(()),
            (false, true) => Err(ErrorKind::NotADirectory.into()),
            (false, false) => Err(ErrorKind::NotFound.into()),
        }
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        self.check_dir(path.parent().unwrap_or(Path::new("")))
    }

    fn below<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
        let inside = move |path: &&PathBuf| path.starts_with(dir) && path.as_path() != dir;
        self.dirs.iter().filter(inside).chain(self.files.keys().filter(inside))
    }
}

#[derive(Default)]
struct MemFile {
    bytes: RwLock<Vec<u8>>,
}

impl MemFile {
    fn bytes(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes_mut(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File for MemFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let bytes = self.bytes();
        let start = usize::try_from(position).map_or(bytes.len(), |start| start.min(bytes.len()));
        let n = buf.len().min(bytes.len() - start);
        buf[..n].copy_from_slice(&bytes[start..start + n]);
        Ok(n)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut start = in_memory(position)?;
        let end = in_memory(position.saturating_add(len as u64))?;
        if len == 0 {
            return Ok(());
        }
        let mut bytes = self.bytes_mut();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        for buf in bufs {
            bytes[start..start + buf.len()].copy_from_slice(buf);
            start += buf.len();
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = in_memory(len)?;
        let mut bytes = self.bytes_mut();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = in_memory(len)?;
        self.bytes_mut().resize(len, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }
}

struct MemLock {
    disk: MemDisk,
    path: PathBuf,
}

impl Lock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.disk.names().locks.remove(&self.path);
    }
}

/// A position that memory might hold: beyond it an error, where asking for the memory would end the process.
fn in_memory(position: u64) -> io::Result<usize> {
    match usize::try_from(position) {
        Ok(index) if position <= SPACE_BYTES => Ok(index),
        _ => Err(ErrorKind::FileTooLarge.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_no_memory_holds_is_an_error_and_changes_nothing() {
        let file = MemDisk::new().create("file".as_ref()).unwrap();
        file.set_len(3).unwrap();
        let beyond = SPACE_BYTES + 1;
        let refused = [
            file.set_len(beyond),
            file.allocate(beyond),
            file.write_all_at(&[IoSlice::new(b"abc")], beyond),
            file.write_all_at(&[IoSlice::new(b"abc")], u64::MAX),
        ];
        assert_eq!(refused.map(|refused| refused.unwrap_err().kind()), [ErrorKind::FileTooLarge; 4]);
        assert_eq!(file.len().unwrap(), 3);
    }

    #[test]
    fn a_file_is_no_directory_whatever_is_asked_of_it() {
        let disk = MemDisk::new();
        let [file, inside] = ["/file", "/file/inside"].map(Path::new);
        disk.create(file).unwrap();
        let refused = [
            disk.create(inside).map(drop),
            disk.rename(file, inside),
            disk.lock(inside, "me").map(drop),
            disk.list(file).map(drop),
            disk.sync_dir(file),
            disk.space(file).map(drop),
            disk.rename_dir(file, Path::new("/other")),
        ];
        assert_eq!(refused.map(|refused| refused.unwrap_err().kind()), [ErrorKind::NotADirectory; 7]);
        assert_eq!(disk.list(Path::new("/")).unwrap(), ["file"], "and it is there still");
        assert_eq!(disk.sync_dir(Path::new("/none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
