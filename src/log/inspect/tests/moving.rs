//! A look at a directory in which somebody else moves files, and at one with files of others.

use super::*;

/// A directory of which one file is not as its list says, or can't be had.
struct Moving {
    disk: MemDisk,
    name: String,
    what: Odd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    /// It went since the directory was listed.
    Gone,
    /// Whoever looks may not open it.
    Refused,
    /// Its first byte can't be read.
    Unreadable,
}

impl Disk for Moving {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path)?;
        match self.what {
            _ if !path.ends_with(&self.name) => Ok(file),
            Odd::Gone => Err(io::ErrorKind::NotFound.into()),
            Odd::Refused => Err(io::ErrorKind::PermissionDenied.into()),
            Odd::Unreadable => Ok(Arc::new(Refusing::at(file, 0..1))),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        unreachable!("inspecting makes nothing")
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        unreachable!("inspecting makes nothing")
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unreachable!("inspecting renames nothing")
    }

    fn rename_dir(&self, _: &Path, _: &Path) -> io::Result<()> {
        unreachable!("inspecting renames nothing")
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        unreachable!("inspecting removes nothing")
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        unreachable!("inspecting removes nothing")
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        unreachable!("inspecting syncs nothing")
    }

    fn lock(&self, _: &Path, _: &str) -> io::Result<Box<dyn crate::disk::Lock>> {
        unreachable!("inspecting takes no lock")
    }

    fn space(&self, _: &Path) -> io::Result<crate::disk::Space> {
        unreachable!("inspecting needs no room")
    }

    fn entropy(&self) -> u128 {
        unreachable!("inspecting names nothing")
    }
}

/// Of a log that is in use. What is left is told as it is, without a word of damage.
#[test]
fn a_file_that_goes_while_the_operator_looks_is_no_flaw() {
    let disk = unsealed();
    let log = open(&disk); // which seals them
    log.housekeep();
    drop(log);
    let all = look(&disk);
    let records = |seen: &Inspected| seen.streams.iter().map(|stream| stream.records).sum::<u64>();
    let first = "0000000000000000";
    for (name, segments, lost) in [
        ("streams.0".to_owned(), all.segments.len(), 0),
        ("streams.1".to_owned(), all.segments.len(), 0),
        (format!("{first}.seg"), all.segments.len() - 1, all.segments[0].records),
        (format!("{first}.idx"), all.segments.len(), 0),
    ] {
        let moving = Moving { disk: disk.clone(), name: name.clone(), what: Odd::Gone };
        let seen = inspect(&moving, Path::new(DIR), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((seen.segments.len(), records(&seen)), (segments, records(&all) - lost), "{name}");
        assert!(seen.flaws.is_empty() && seen.segments.iter().all(|segment| segment.damage.is_empty()), "{name}");
        assert_eq!(seen.log_id, all.log_id, "{name}");
    }
    // And an index that is all that is left, of which the same was true when it was looked for.
    disk.remove(&Path::new(DIR).join(format!("{first}.seg"))).unwrap();
    let moving = Moving { disk, name: format!("{first}.idx"), what: Odd::Gone };
    let seen = inspect(&moving, Path::new(DIR), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((seen.segments.len(), seen.flaws), (all.segments.len() - 1, vec![]));
}

/// Nothing is known of it then, and to say so is all that can be done.
#[test]
fn a_file_that_nobody_may_open_ends_the_look() {
    for name in ["streams.0", "0000000000000000.seg", "0000000000000000.idx"] {
        let disk = MemDisk::new();
        closed(&disk);
        let moving = Moving { disk, name: name.to_owned(), what: Odd::Refused };
        let refused = inspect(&moving, Path::new(DIR), |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(&refused, OpenError::Io { what: "open", path, .. } if path.ends_with(name)), "{refused}");
    }
}

/// What its header says of the one before is not known, and its frames are.
#[test]
fn a_header_that_cannot_be_read_is_a_damaged_one() {
    let disk = unsealed();
    let (name, sound) = ("0000000000000002.seg", look(&disk));
    let moving = Moving { disk, name: name.to_owned(), what: Odd::Unreadable };
    let seen = inspect(&moving, Path::new(DIR), |_| ControlFlow::Continue(())).unwrap();
    let frames = |seen: &Inspected| seen.segments.iter().map(|segment| segment.frames).collect::<Vec<_>>();
    // The disk gives blocks, so its first frame is gone with the header.
    assert_eq!((frames(&sound), frames(&seen)), (vec![4, 2, 1], vec![4, 2, 0]));
}

/// A file that somebody copied there: its header must not end a segment of ours.
#[test]
fn the_header_of_another_logs_segment_says_nothing_of_ours() {
    let (disk, other) = (unsealed(), MemDisk::new());
    let log = open(&other);
    log.append_wait("theirs", vec![Payload { bytes: vec![1; 100], records: 1 }]).unwrap();
    drop(log);
    let sound = look(&disk);
    let last = sound.segments.iter().map(|segment| segment.sequence).max().unwrap();
    let predecessor = Some(crate::log::segment::Predecessor { sequence: last, end: SEGMENT_HEADER_BYTES });
    let bytes = read_all(&*other.open(&Path::new(DIR).join("0000000000000000.seg")).unwrap()).unwrap();
    let sequence = Sequence(0xff);
    let theirs = SegmentHeader { sequence, predecessor, ..SegmentHeader::decode(&bytes).unwrap() };
    let file = disk.create(&Path::new(DIR).join("00000000000000ff.seg")).unwrap();
    file.write_all_at(&[IoSlice::new(&theirs.encode())], 0).unwrap();
    let seen = look(&disk);
    assert_eq!((seen.log_id, &seen.streams), (sound.log_id, &sound.streams));
    assert_eq!(seen.segments[..sound.segments.len()], sound.segments);
}
