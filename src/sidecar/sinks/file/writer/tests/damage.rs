//! Files that a disk has damaged in their middle.

use storage_tests::any_change::power_cut_at_any_change;
use storage_tests::sim_disk::SimDisk;

use super::*;

/// Before, all that lay behind the sector was cut off, though it had been delivered.
#[test]
fn a_sector_that_reads_as_zeros_costs_the_lines_in_it_and_no_line_behind() {
    let disk = Faulty::default();
    let mut writer = open(&disk);
    (0..30).for_each(|n| writer.append(&batch(n * 10..n * 10 + 10), NOW).unwrap());
    let name = disk.list(DIR.as_ref()).unwrap().remove(0);
    let file = disk.inner.open(&Path::new(DIR).join(&name)).unwrap();
    file.write_all_at(&[IoSlice::new(&[0; 512])], 4096).unwrap();
    let damaged = (0..300).filter(|offset| {
        let (start, end) = (lines(0..*offset).len(), lines(0..*offset + 1).len());
        start < 4096 + 512 && end > 4096
    });
    let damaged: Vec<u64> = damaged.collect();
    assert!(damaged.len() > 5, "{damaged:?}");
    let mut found = 0;
    let config = FileConfig { rotate_bytes: 1 << 20, rotate_age: Duration::from_secs(60), ..FileConfig::new(DIR) };
    let reopened = Writer::open(Arc::new(disk.clone()), "d", config, &Unsettled::default(), &mut found).unwrap();
    drop(reopened);
    assert_eq!(found, damaged.len() as u64, "each is counted");
    // What was not settled comes again; here all from the 290th on.
    open(&disk).append(&batch(290..303), NOW).unwrap();
    let whole: String = (0..303).filter(|offset| !damaged.contains(offset)).map(line).collect();
    assert_eq!(
        (files(&disk).len(), text(&disk)),
        (1, whole),
        "nothing else is missing, and nothing that is no line is left"
    );
    let mut writer = open(&disk);
    writer.append(&batch(damaged[0]..damaged[0] + 1), NOW).unwrap();
    assert!(text(&disk).ends_with(&line(damaged[0])), "what was not delivered is written again");
}

#[test]
fn damage_is_counted_once_though_it_takes_several_tries() {
    let disk = Faulty::default();
    let config = FileConfig { rotate_bytes: 1, rotate_age: Duration::from_secs(60), ..FileConfig::new(DIR) };
    let open =
        |damaged: &mut u64| Writer::open(Arc::new(disk.clone()), "d", config.clone(), &Unsettled::default(), damaged);
    let mut writer = open(&mut 0).unwrap();
    (0..3).for_each(|n| writer.append(&batch(n * 10..n * 10 + 10), NOW).unwrap());
    drop(writer);
    let mut names = disk.list(DIR.as_ref()).unwrap();
    names.sort_unstable();
    assert!(names.len() >= 3 && names[names.len() - 1].ends_with(".open"), "{names:?}");
    for name in &names[names.len() - 2..] {
        let file = disk.inner.open(&Path::new(DIR).join(name)).unwrap();
        file.write_all_at(&[IoSlice::new(&[0; 5])], line(0).len() as u64 + 10).unwrap();
    }
    let mut damaged = 0;
    // The broken middle of the file that is written to goes, at the third try; that of the one before stays.
    disk.faults.sync.store(2, Ordering::SeqCst);
    while open(&mut damaged).is_err() {}
    assert_eq!(damaged, 2);
    let mut again = 0;
    drop(open(&mut again).unwrap());
    assert_eq!(again, 1, "what nobody mended is there still");
}

#[test]
fn what_a_hole_took_is_counted_where_the_ids_around_it_tell() {
    let hole = |behind: Option<&str>, before: &str| {
        let (behind, before) = (behind.map(str::to_owned), before.to_owned());
        Hole { bytes: 0..1, behind, before }.records()
    };
    assert_eq!(hole(Some("log-3-7"), "log-3-12"), Some(4));
    assert_eq!(hole(Some("log-3-7"), "log-4-12"), None, "of another stream");
    assert_eq!(hole(Some("log-3-7"), "log-3-2"), None, "replayed");
    assert_eq!(hole(Some("log-3-7"), "log-3-8"), None, "what lies between was no record");
    assert_eq!(hole(None, "log-3-8"), None);
}

/// A file with a hole is taken up, and the power fails at any change of that.
#[test]
fn a_power_cut_while_a_broken_file_is_mended_loses_and_doubles_no_line() {
    let start = SimDisk::new(5);
    let config = FileConfig { rotate_bytes: 1 << 20, rotate_age: Duration::from_secs(60), ..FileConfig::new(DIR) };
    let open =
        |disk: &SimDisk| Writer::open(Arc::new(disk.clone()), "d", config.clone(), &Unsettled::default(), &mut 0);
    let mut writer = open(&start).unwrap();
    (0..4).for_each(|n| writer.append(&batch(n * 10..n * 10 + 10), NOW).unwrap());
    drop(writer);
    let name = start.list(DIR.as_ref()).unwrap().remove(0);
    let file = start.open(&Path::new(DIR).join(name)).unwrap();
    let hole = lines(0..12).len() as u64;
    file.write_all_at(&[IoSlice::new(&[0; 20])], hole).unwrap();
    file.sync_data().unwrap();
    let snapshot = start.snapshot();
    let go_on = |disk: &SimDisk| open(disk).and_then(|mut writer| writer.append(&batch(40..45), NOW));
    let changes = power_cut_at_any_change(
        &snapshot,
        |disk, (): &mut ()| go_on(disk),
        |disk, (), case| {
            go_on(disk).unwrap();
            let mut text = String::new();
            for name in disk.list(DIR.as_ref()).unwrap().into_iter().filter(|name| !name.ends_with(MENDING)) {
                let file = disk.open(&Path::new(DIR).join(name)).unwrap();
                text += &String::from_utf8(read_all(&*file).unwrap()).unwrap();
            }
            let mut found: Vec<&str> = text.lines().collect();
            found.sort_unstable();
            let all = lines(0..12) + &lines(13..45);
            let mut expected: Vec<&str> = all.lines().collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{case}");
        },
    );
    assert!(changes >= 6, "{changes}");
}
