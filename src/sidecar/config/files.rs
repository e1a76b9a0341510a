//! Looks at the operator's files: reads the configuration and the secrets it names, and sees what the directories in it
//! stand on. The one place in the sidecar that opens what is not in the data directory, and it only reads.

use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// A file as it was found. Has no `Debug`: it may hold a secret.
#[derive(Clone)]
pub struct FileContent {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Whether every user of the machine may read it.
    pub world_readable: bool,
}

/// What a directory stands on, or would be made on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// The directory itself, or the nearest one above it that is there.
    pub nearest: PathBuf,
    /// Whether that is a directory.
    pub is_directory: bool,
    /// Whether this process may make files in it.
    pub writable: bool,
    /// The size of the disk that it is on.
    pub disk_bytes: u64,
}

/// What `directory` stands on, whether or not it exists. Changes nothing, so a disk that refuses writes is not noticed.
///
/// # Errors
/// When what is there cannot be looked at.
pub(super) fn ground(directory: &Path) -> io::Result<Ground> {
    for nearest in directory.ancestors() {
        let found = match std::fs::metadata(nearest) {
            // A file in the place of a directory above it: that file is what stands in the way.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            found => found?,
        };
        let disk = rustix::fs::statvfs(nearest)?;
        return Ok(Ground {
            nearest: nearest.to_owned(),
            is_directory: found.is_dir(),
            writable: rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
            disk_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        });
    }
    Err(ErrorKind::NotFound.into())
}

/// Reads a file of at most `bytes_max` bytes.
///
/// # Errors
/// Those of the file system; `FileTooLarge` above the limit.
#[expect(clippy::disallowed_methods, reason = "Disk opens for writing, and these files may well be mounted read-only")]
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<FileContent> {
    let file = std::fs::File::open(path)?;
    let world_readable = file.metadata()?.permissions().mode() & 0o004 != 0;
    let mut bytes = Vec::new();
    // One more than allowed, to tell "as large as allowed" from "larger".
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {bytes_max} bytes")));
    }
    Ok(FileContent { bytes, world_readable })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test needs a real file with real permissions")]
    fn a_file_is_read_up_to_its_limit_and_its_readers_are_known() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, mode, world_readable) in [("open", 0o644, true), ("closed", 0o600, false)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "12345678").expect("writes");
            // Set, not asked for at creation: the umask of whoever runs the test has no say.
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("sets them");
            let found = read(&path, 8).expect("it is just small enough");
            assert_eq!((found.bytes.as_slice(), found.world_readable), (b"12345678".as_slice(), world_readable));
            let refused = read(&path, 7).err().expect("it is too large");
            assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        }
        assert!(read(&dir.path().join("absent"), 8).is_err());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test needs real files")]
    fn a_directory_stands_on_what_is_nearest() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let below = ground(&dir.path().join("a/b")).expect("it can be looked at");
        assert_eq!((below.nearest.as_path(), below.is_directory, below.writable), (dir.path(), true, true));
        assert!(below.disk_bytes > 0);
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("writes");
        for path in [file.clone(), file.join("below")] {
            let ground = ground(&path).expect("it can be looked at");
            assert_eq!((ground.nearest.as_path(), ground.is_directory), (file.as_path(), false), "{path:?}");
        }
    }
}
