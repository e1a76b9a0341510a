//! The tree of directories and files: paths to nodes, and which nodes are still needed.
//!
//! No call can fail here by a fault: a process and the test that watches it find their files the same way.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::content::Content;
use super::names::{Name, Names, Node};
use super::state::{ROOT, SimulatedFile, State};

impl State {
    pub(super) fn find_file(&self, path: &Path) -> io::Result<u64> {
        let (dir, name) = self.parent(path)?;
        match self.dir(dir).get(&name) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn find_dir(&self, path: &Path) -> io::Result<u64> {
        let mut dir = ROOT;
        for name in components(path)? {
            dir = match self.dir(dir).get(&name) {
                Some(Node::Dir(below)) => below,
                Some(Node::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                None => return Err(ErrorKind::NotFound.into()),
            };
        }
        Ok(dir)
    }

    pub(super) fn find_durable(&self, path: &Path) -> Option<&Content> {
        let mut node = Node::Dir(ROOT);
        for name in components(path).ok()? {
            let Node::Dir(dir) = node else { return None };
            node = self.dir(dir).get_durable(&name)?;
        }
        match node {
            Node::File(file) => Some(self.content(file)),
            Node::Dir(_) => None,
        }
    }

    pub(super) fn overwrite(&mut self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let file = match self.dir(dir).get(&name) {
            Some(Node::Dir(_)) => return Err(ErrorKind::IsADirectory.into()),
            Some(Node::File(file)) => file,
            None => self.new_node(),
        };
        self.files.entry(file).or_default().content = Content::of(bytes);
        self.dir_mut(dir).put_durably(name, Node::File(file));
        Ok(())
    }

    pub(super) fn erase(&mut self, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        let (dir, name) = self.parent(path)?;
        self.dir_mut(dir).remove_durably(&name);
        Ok(())
    }

    /// All files, with the paths that a process sees.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        self.walk(&mut |path, _| paths.push(path.to_owned()));
        paths
    }

    /// Bytes reserved by files that have a name or are open.
    pub(super) fn used(&self) -> u64 {
        let mut named = BTreeSet::new();
        self.walk(&mut |_, file| {
            named.insert(file);
        });
        let counts = |(id, file): &(&u64, &SimulatedFile)| file.handles > 0 || named.contains(id);
        self.files.iter().filter(counts).map(|(_, file)| file.content.reserved()).sum()
    }

    /// Forgets what has no name, may get none by a crash, and is not open.
    pub(super) fn collect(&mut self) {
        let (mut files, mut dirs, mut next) = (BTreeSet::new(), BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(dir) = next.pop() {
            for node in self.dir(dir).nodes() {
                match node {
                    Node::File(file) => drop(files.insert(file)),
                    Node::Dir(below) if dirs.insert(below) => next.push(below),
                    Node::Dir(_) => {}
                }
            }
        }
        self.files.retain(|id, file| file.handles > 0 || files.contains(id));
        self.dirs.retain(|id, _| dirs.contains(id));
    }

    fn walk(&self, visit: &mut dyn FnMut(&Path, u64)) {
        let mut next = vec![(PathBuf::from("/"), ROOT)];
        while let Some((above, dir)) = next.pop() {
            for (name, node) in self.dir(dir).live() {
                match node {
                    Node::File(file) => visit(&above.join(&**name), file),
                    Node::Dir(below) => next.push((above.join(&**name), below)),
                }
            }
        }
    }

    pub(super) fn parent(&self, path: &Path) -> io::Result<(u64, Name)> {
        let name = components(path)?.pop().ok_or(ErrorKind::IsADirectory)?;
        Ok((self.find_dir(path.parent().unwrap_or(path))?, name))
    }

    pub(super) fn siblings(&self, from: &Path, to: &Path) -> io::Result<(u64, Name, Name)> {
        let ((dir, old), (other, new)) = (self.parent(from)?, self.parent(to)?);
        if dir != other {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a rename is within one directory: see Disk::rename"));
        }
        Ok((dir, old, new))
    }

    pub(super) fn new_node(&mut self) -> u64 {
        self.next_node += 1;
        self.next_node - 1
    }

    pub(super) fn dir(&self, dir: u64) -> &Names {
        &self.dirs[&dir]
    }

    pub(super) fn dir_mut(&mut self, dir: u64) -> &mut Names {
        self.dirs.get_mut(&dir).expect("a directory with a name is never collected")
    }

    pub(super) fn file_mut(&mut self, file: u64) -> &mut SimulatedFile {
        self.files.get_mut(&file).expect("a file with a name or a handle is never collected")
    }
}

pub(super) fn components(path: &Path) -> io::Result<Vec<Name>> {
    let mut names: Vec<Name> = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(Arc::from(name.to_str().ok_or(ErrorKind::InvalidInput)?)),
            Component::ParentDir | Component::Prefix(_) => return Err(ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}
