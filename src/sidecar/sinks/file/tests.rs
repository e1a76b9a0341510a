//! The sink as a whole: real records through the real encoder, on a disk in memory and on the machine's own.

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::disk::read_all;
use forebay::disk::real::RealDisk;
use std::path::Path;
use std::time::Duration;

use super::faulty::Faulty;
use super::*;
use crate::config::FileCompression;
use crate::sinks::sample::job;

fn sink(disk: Arc<dyn Disk>, dir: &Path) -> FileSink {
    FileSink::new("archive", FileConfig::new(dir), disk, Arc::new(ManualClock::at(1_700_000_000_000)))
}

async fn deliver(sink: &FileSink, offsets: std::ops::Range<u64>) -> Outcome {
    let job = job(offsets);
    sink.send(&sink.encode(&job).unwrap(), &job.id, Instant::now() + Duration::from_secs(20)).await
}

fn lines(disk: &dyn Disk, dir: &Path) -> Vec<serde_json::Value> {
    let mut names = disk.list(dir).unwrap();
    names.sort();
    let text: Vec<u8> =
        names.iter().flat_map(|name| read_all(&*disk.open(&dir.join(name)).unwrap()).unwrap()).collect();
    text.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[tokio::test]
async fn records_become_lines_with_ids_whatever_the_boundaries() {
    let (disk, dir) = (MemDisk::new(), Path::new("out"));
    let sink = sink(Arc::new(disk.clone()), dir);
    assert_eq!(deliver(&sink, 7..25).await, Outcome::Delivered);
    assert_eq!(deliver(&sink, 25..26).await, Outcome::Delivered);
    let lines = lines(&disk, dir);
    assert_eq!(lines.len(), 19);
    for (offset, line) in (7..).zip(&lines) {
        assert_eq!(line["id"], format!("{}-3-{offset}", forebay::LogId(77)));
        assert_eq!(line["key"], format!("user-{offset}"));
        assert_eq!(line["environmentName"], "production");
    }
}

#[tokio::test]
async fn lines_that_a_disk_has_lost_are_counted_for_who_watches() {
    let (disk, dir) = (MemDisk::new(), Path::new("out"));
    let damaged = Arc::<Damaged>::default();
    let open = || sink(Arc::new(disk.clone()), dir).counting(&damaged);
    assert_eq!(deliver(&open(), 0..30).await, Outcome::Delivered);
    assert_eq!(deliver(&open(), 30..40).await, Outcome::Delivered);
    assert_eq!(damaged.all(), [], "nothing is wrong with it");
    let file = disk.open(&dir.join(disk.list(dir).unwrap().remove(0))).unwrap();
    let text = String::from_utf8(read_all(&*file).unwrap()).unwrap();
    // From within the fifth line into the seventh.
    let at = |line: usize| text.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
    let gone = vec![0; at(6) + 3 - at(4) - 3];
    file.write_all_at(&[std::io::IoSlice::new(&gone)], at(4) as u64 + 3).unwrap();
    assert_eq!(deliver(&open(), 40..50).await, Outcome::Delivered);
    assert_eq!(damaged.all(), [("archive".into(), 3)]);
    assert_eq!(lines(&disk, dir).len(), 47, "all others are there");
    assert_eq!(deliver(&open(), 50..60).await, Outcome::Delivered);
    assert_eq!(damaged.all(), [("archive".into(), 3)], "it is mended");
}

#[tokio::test]
async fn on_the_machines_disk_a_restart_repeats_no_line() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("made/when/missing");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    assert_eq!(deliver(&sink(Arc::clone(&disk), &dir), 0..30).await, Outcome::Delivered);
    let again = sink(Arc::clone(&disk), &dir);
    assert_eq!(deliver(&again, 20..30).await, Outcome::Delivered);
    assert_eq!(deliver(&again, 30..40).await, Outcome::Delivered);
    let keys: Vec<_> = lines(&*disk, &dir).iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, (0..40).map(|n| format!("user-{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_a_retry_that_says_why() {
    let temp = tempfile::tempdir().unwrap();
    let disk = RealDisk;
    disk.create(&temp.path().join("file")).unwrap();
    let sink = sink(Arc::new(disk), &temp.path().join("file/below"));
    assert!(matches!(deliver(&sink, 0..3).await, Outcome::Retry { why: Failure::Disk(_) }));
}

#[test]
fn a_payload_that_is_no_stored_batch_is_refused_with_its_place() {
    let sink = sink(Arc::new(MemDisk::new()), Path::new("out"));
    let mut job = job(0..3);
    job.parts[0].payload = Bytes::from_static(&[0xff; 7]);
    assert!(sink.encode(&job).unwrap_err().to_string().contains("offsets 0..3"));
}

#[tokio::test]
async fn who_waits_behind_a_hung_disk_gives_up_at_its_deadline() {
    let sink = sink(Arc::new(MemDisk::new()), Path::new("out"));
    let _hung = Arc::clone(&sink.place).lock_owned().await;
    let job = job(0..3);
    let encoded = sink.encode(&job).unwrap();
    let outcome = sink.send(&encoded, &job.id, Instant::now() + Duration::from_millis(20)).await;
    assert_eq!(outcome, Outcome::Retry { why: Failure::Timeout });
}

#[tokio::test]
async fn packed_files_hold_the_same_lines_and_a_restart_repeats_none_of_them() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(RealDisk));
    let sink = || {
        let config = FileConfig { compression: FileCompression::Zstd, ..FileConfig::new(dir.path()) };
        FileSink::new(
            "archive",
            config,
            Arc::clone(&disk) as Arc<dyn Disk>,
            Arc::new(ManualClock::at(1_700_000_000_000)),
        )
    };
    assert_eq!(deliver(&sink(), 0..25).await, Outcome::Delivered);
    let name = dir.path().join("archive-1700000000000-000000.jsonl.zst.open");
    // A crash tears the next frame, of a batch whose answer nobody heard.
    let file = disk.open(&name).unwrap();
    let whole = file.len().unwrap();
    assert_eq!(deliver(&sink(), 25..40).await, Outcome::Delivered);
    file.set_len(file.len().unwrap() - 3).unwrap();
    let again = sink();
    assert_eq!(deliver(&again, 0..40).await, Outcome::Delivered);
    assert_eq!(disk.list(dir.path()).unwrap().len(), 1, "the same file goes on");
    let packed = read_all(&*disk.open(&name).unwrap()).unwrap();
    assert!(packed.len() as u64 > whole);
    let text = zstd::decode_all(&packed[..]).unwrap();
    let ids: Vec<u64> = text
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .map(|id| record_id::parse(&id).unwrap().1)
        .collect();
    assert_eq!(ids, (0..40).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn another_packing_begins_with_another_file_and_knows_the_lines_of_the_one_before() {
    let (disk, dir) = (MemDisk::new(), Path::new("out"));
    assert_eq!(deliver(&sink(Arc::new(disk.clone()), dir), 0..20).await, Outcome::Delivered);
    let config = FileConfig { compression: FileCompression::Zstd, ..FileConfig::new(dir) };
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let packed = FileSink::new("archive", config, Arc::new(disk.clone()), clock);
    assert_eq!(deliver(&packed, 0..30).await, Outcome::Delivered);
    let mut names = disk.list(dir).unwrap();
    names.sort();
    assert_eq!(names, ["archive-1700000000000-000000.jsonl", "archive-1700000000000-000001.jsonl.zst.open"]);
    let bytes = read_all(&*disk.open(&dir.join(&names[1])).unwrap()).unwrap();
    let text = zstd::decode_all(&bytes[..]).unwrap();
    assert_eq!(memchr::memchr_iter(b'\n', &text).count(), 10, "only what the plain file does not hold");
}

/// Before, the sink that came next opened the file that its predecessor was still writing to: when the disk went on, what
/// that wrote came over lines that had been delivered meanwhile.
#[tokio::test]
async fn a_sink_that_follows_on_a_hung_disk_waits_for_its_write_and_no_line_is_lost_or_doubled() {
    let (disk, dir) = (Faulty::default(), Path::new("out"));
    let writers = Writers::default();
    let made = || sink(Arc::new(disk.clone()), dir).following(&writers);
    let first = Arc::new(made());
    assert_eq!(deliver(&first, 0..10).await, Outcome::Delivered);
    let hangs = disk.hang();
    let hung = tokio::spawn(async move { deliver(&first, 10..20).await });
    let there = disk.clone();
    tokio::task::spawn_blocking(move || there.wait_for_a_write()).await.unwrap();
    // It is replaced: its task is cut off when the grace is over, and its batch goes back to the queue.
    hung.abort();
    assert!(hung.await.unwrap_err().is_cancelled());

    let next = made();
    let job = job(20..30);
    let encoded = next.encode(&job).unwrap();
    let sent = next.send(&encoded, &job.id, Instant::now() + Duration::from_millis(20));
    let outcome = tokio::time::timeout(Duration::from_secs(20), sent).await.expect("it waits, and writes nothing");
    assert_eq!(outcome, Outcome::Retry { why: Failure::Timeout });
    drop(hangs);
    assert_eq!(deliver(&next, 20..30).await, Outcome::Delivered);
    assert_eq!(deliver(&next, 10..20).await, Outcome::Delivered, "written by now, and recognised");
    let found: Vec<_> = lines(&disk, dir).iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, (0..30).map(|n| format!("user-{n}")).collect::<Vec<_>>());
    // Whoever writes elsewhere waits for none of that.
    let _held = Arc::clone(&next.place).lock_owned().await;
    assert!(made().place.try_lock().is_err());
    assert!(sink(Arc::new(disk), Path::new("elsewhere")).following(&writers).place.try_lock().is_ok());
}
