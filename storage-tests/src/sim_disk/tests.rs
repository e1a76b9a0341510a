//! What the simulated disk promises and what it breaks. The file-system rows were measured by cutting real power.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use forebay::disk::latched::Latched;
use forebay::disk::read_all;

use super::*;
use crate::fault::Failure;

const CUTS: [PowerCut; 4] = [PowerCut::NothingUnsynced, PowerCut::Everything, PowerCut::Prefix, PowerCut::RandomSubset];

fn at(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

fn disk() -> SimDisk {
    let disk = SimDisk::new(0);
    disk.create_dir("/d".as_ref()).unwrap();
    disk
}

/// A file with these bytes, nothing synced.
fn put(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.create(&at(name)).unwrap();
    write(&*file, 0, bytes);
    file
}

/// A file with these bytes that no cut can take.
fn put_durably(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = put(disk, name, bytes);
    file.sync_data().unwrap();
    disk.sync_dir("/d".as_ref()).unwrap();
    file
}

fn write(file: &dyn File, position: u64, bytes: &[u8]) {
    file.write_all_at(&[IoSlice::new(bytes)], position).unwrap();
}

/// All that is found after `cut` with many seeds.
fn after<T: Ord>(before: &SimDisk, cut: PowerCut, look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    let snapshot = before.snapshot();
    let disk = SimDisk::from_snapshot(&snapshot);
    let one = |seed| {
        disk.restore(&snapshot);
        disk.reseed(seed);
        disk.power_cut(cut);
        look(&disk)
    };
    (0..400).map(one).collect()
}

fn live(name: &str) -> impl Fn(&SimDisk) -> Option<Vec<u8>> {
    let path = at(name);
    move |disk| disk.read_live(&path)
}

fn set<const N: usize>(all: [Option<&str>; N]) -> BTreeSet<Option<Vec<u8>>> {
    all.into_iter().map(|bytes| bytes.map(|bytes| bytes.as_bytes().to_vec())).collect()
}

// Names

#[test]
fn a_synced_file_may_vanish_until_its_directory_is_synced() {
    let disk = disk();
    put(&disk, "a", b"new").sync_data().unwrap();
    assert_eq!(after(&disk, PowerCut::NothingUnsynced, live("a")), set([None]));
    assert_eq!(after(&disk, PowerCut::RandomSubset, live("a")), set([None, Some("new")]));
    disk.sync_dir("/d".as_ref()).unwrap();
    for cut in CUTS {
        assert_eq!(after(&disk, cut, live("a")), set([Some("new")]), "{cut:?}");
    }
}

#[test]
fn a_file_whose_name_is_synced_and_its_bytes_are_not_may_be_empty_or_torn() {
    let disk = disk();
    put(&disk, "a", b"abc");
    assert_eq!(after(&disk, PowerCut::NothingUnsynced, live("a")), set([None]));
    disk.sync_dir("/d".as_ref()).unwrap();
    assert_eq!(after(&disk, PowerCut::NothingUnsynced, live("a")), set([Some("")]));
    assert_eq!(after(&disk, PowerCut::Everything, live("a")), set([Some("abc")]));
    assert_eq!(after(&disk, PowerCut::Prefix, live("a")), set([Some(""), Some("a"), Some("ab"), Some("abc")]));
    let chances = after(&disk, PowerCut::RandomSubset, live("a"));
    assert!(
        chances.is_superset(&set([Some(""), Some("abc"), Some("a"), Some("\0\0c"), Some("\0\0\0")])),
        "{chances:?}"
    );
}

#[test]
fn a_rename_leaves_the_old_file_or_the_new_and_after_a_directory_sync_the_new() {
    let disk = disk();
    put_durably(&disk, "floor", b"old");
    put(&disk, "tmp", b"new").sync_data().unwrap();
    disk.rename(&at("tmp"), &at("floor")).unwrap();
    assert_eq!(after(&disk, PowerCut::NothingUnsynced, live("floor")), set([Some("old")]));
    assert_eq!(after(&disk, PowerCut::RandomSubset, live("floor")), set([Some("old"), Some("new")]));
    let names = after(&disk, PowerCut::RandomSubset, |disk| disk.paths());
    assert_eq!(names.len(), 2, "with the temporary file or without: {names:?}");
    disk.sync_dir("/d".as_ref()).unwrap();
    for cut in CUTS {
        assert_eq!(after(&disk, cut, live("floor")), set([Some("new")]), "{cut:?}");
    }
}

#[test]
fn a_rename_of_an_unsynced_file_leaves_the_old_file_or_any_part_of_the_new() {
    let disk = disk();
    put_durably(&disk, "floor", b"old");
    put(&disk, "tmp", b"nw");
    disk.rename(&at("tmp"), &at("floor")).unwrap();
    assert_eq!(after(&disk, PowerCut::NothingUnsynced, live("floor")), set([Some("old")]));
    let found = after(&disk, PowerCut::RandomSubset, live("floor"));
    assert!(found.is_superset(&set([Some("old"), Some(""), Some("n"), Some("nw"), Some("\0\0")])), "{found:?}");
}

#[test]
fn a_removed_file_comes_back_until_the_directory_is_synced() {
    let disk = disk();
    put_durably(&disk, "a", b"back");
    disk.remove(&at("a")).unwrap();
    assert!(disk.open(&at("a")).is_err());
    assert_eq!(after(&disk, PowerCut::NothingUnsynced, live("a")), set([Some("back")]));
    assert_eq!(after(&disk, PowerCut::RandomSubset, live("a")), set([Some("back"), None]));
    disk.sync_dir("/d".as_ref()).unwrap();
    for cut in CUTS {
        assert_eq!(after(&disk, cut, live("a")), set([None]), "{cut:?}");
    }
}

#[test]
fn names_survive_each_for_itself() {
    let disk = disk();
    put(&disk, "a", b"");
    put(&disk, "b", b"");
    let names = after(&disk, PowerCut::RandomSubset, |disk| disk.paths());
    assert_eq!(names, BTreeSet::from([vec![], vec![at("a")], vec![at("b")], vec![at("a"), at("b")]]));
    let names = after(&disk, PowerCut::Prefix, |disk| disk.paths());
    assert_eq!(names, BTreeSet::from([vec![], vec![at("a")], vec![at("a"), at("b")]]), "in order");
}

#[test]
fn a_durable_file_keeps_a_name_through_any_renames() {
    let disk = disk();
    put_durably(&disk, "a", b"kept");
    disk.rename(&at("a"), &at("b")).unwrap();
    put(&disk, "a", b"").sync_data().unwrap();
    disk.rename(&at("b"), &at("c")).unwrap();
    let found = after(&disk, PowerCut::RandomSubset, |disk| {
        ["a", "b", "c"].map(|name| disk.read_live(&at(name)) == Some(b"kept".to_vec()))
    });
    assert_eq!(found, BTreeSet::from([[true, false, false], [false, true, false], [false, false, true]]));
}

#[test]
fn a_failed_directory_sync_leaves_its_names_to_chance_and_the_next_one_does_not_help() {
    let mut found = BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        disk.create_dir("/d".as_ref()).unwrap();
        disk.inject(Fault::nth(OpKind::SyncDir, 0, Failure::Eio));
        put(&disk, "a", b"").sync_data().unwrap();
        put(&disk, "b", b"").sync_data().unwrap();
        assert_eq!(disk.sync_dir("/d".as_ref()).unwrap_err().raw_os_error(), Some(5));
        put(&disk, "c", b"").sync_data().unwrap();
        disk.sync_dir("/d".as_ref()).unwrap();
        assert_eq!(disk.list("/d".as_ref()).unwrap().len(), 3, "a process sees them all");
        disk.power_cut(PowerCut::Everything);
        let mut names = disk.list("/d".as_ref()).unwrap();
        assert_eq!(names.pop().as_deref(), Some("c"), "what came after the failure is durable");
        found.insert(names);
    }
    let all = [vec![], vec!["a".to_owned()], vec!["b".to_owned()], vec!["a".to_owned(), "b".to_owned()]];
    assert_eq!(found, BTreeSet::from(all));
}

#[test]
fn a_directory_is_durable_when_made_and_its_renaming_and_removal_are_not() {
    let disk = disk();
    disk.create_dir("/d/store/sub".as_ref()).unwrap();
    disk.overwrite("/d/store/sub/db".as_ref(), b"db");
    let where_is_it = |disk: &SimDisk| disk.paths();
    for cut in CUTS {
        assert_eq!(after(&disk, cut, where_is_it), BTreeSet::from([vec![at("store/sub/db")]]), "{cut:?}");
    }
    disk.rename_dir(&at("store"), &at("aside")).unwrap();
    let either = BTreeSet::from([vec![at("store/sub/db")], vec![at("aside/sub/db")]]);
    assert_eq!(after(&disk, PowerCut::RandomSubset, where_is_it), either);
    disk.sync_dir("/d".as_ref()).unwrap();
    disk.remove_dir(&at("aside")).unwrap();
    let either = BTreeSet::from([vec![], vec![at("aside/sub/db")]]);
    assert_eq!(after(&disk, PowerCut::RandomSubset, where_is_it), either);
}

#[test]
fn a_rename_into_another_directory_is_refused() {
    let disk = disk();
    put(&disk, "a", b"");
    disk.create_dir("/e".as_ref()).unwrap();
    let error = disk.rename(&at("a"), "/e/a".as_ref()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

// Bytes

#[test]
fn synced_bytes_stay_and_an_unsynced_tail_goes() {
    let disk = disk();
    let file = put_durably(&disk, "a", b"synced");
    write(&*file, 6, b"+tail");
    assert_eq!(after(&disk, PowerCut::NothingUnsynced, live("a")), set([Some("synced")]));
    for cut in CUTS {
        for bytes in after(&disk, cut, live("a")) {
            assert!(bytes.unwrap().starts_with(b"synced"), "{cut:?}");
        }
    }
}

#[test]
fn there_is_no_order_between_files() {
    let disk = disk();
    let (first, second) = (put_durably(&disk, "a", b""), put_durably(&disk, "b", b""));
    write(&*first, 0, b"1");
    write(&*second, 0, b"2");
    let both = |disk: &SimDisk| (disk.read_live(&at("a")).unwrap(), disk.read_live(&at("b")).unwrap());
    let found = after(&disk, PowerCut::RandomSubset, both);
    assert!(found.contains(&(vec![], b"2".to_vec())), "{found:?}");
    assert!(found.contains(&(b"1".to_vec(), vec![])), "{found:?}");
    second.sync_data().unwrap();
    assert_eq!(after(&disk, PowerCut::NothingUnsynced, both), BTreeSet::from([(vec![], b"2".to_vec())]));
}

#[test]
fn an_overwrite_is_torn_at_every_byte_and_from_either_side() {
    let disk = disk();
    let file = put_durably(&disk, "a", b"oooo");
    write(&*file, 0, b"nnnn");
    let found = after(&disk, PowerCut::RandomSubset, live("a"));
    let torn = ["oooo", "nooo", "nnoo", "nnno", "nnnn", "onnn", "oonn", "ooon"];
    assert_eq!(found, set(torn.map(Some)));
}

#[test]
fn sectors_survive_in_any_order_and_only_with_old_and_new_bytes() {
    let disk = disk();
    let file = put_durably(&disk, "a", &[b'o'; 5 * 512]);
    write(&*file, 100, &[b'n'; 4 * 512]);
    let found = after(&disk, PowerCut::RandomSubset, |disk| {
        let bytes = disk.read_live(&at("a")).unwrap();
        assert_eq!(bytes.len(), 5 * 512);
        assert!(bytes[..100].iter().chain(&bytes[100 + 4 * 512..]).all(|byte| *byte == b'o'), "never written");
        assert!(bytes.iter().all(|byte| b"on".contains(byte)));
        (bytes[100] == b'n', bytes[1024] == b'n', bytes[4 * 512] == b'n')
    });
    assert_eq!(found.len(), 8, "first, middle and last sector, each for itself: {found:?}");
}

#[test]
fn a_sector_written_twice_may_keep_its_state_in_between() {
    let disk = disk();
    let file = put_durably(&disk, "a", b"0");
    write(&*file, 0, b"1");
    write(&*file, 0, b"2");
    assert_eq!(after(&disk, PowerCut::RandomSubset, live("a")), set([Some("0"), Some("1"), Some("2")]));
}

#[test]
fn a_cut_of_the_length_is_not_durable_before_a_sync_and_cut_bytes_never_return_after_it() {
    let disk = disk();
    let file = put_durably(&disk, "a", b"abcd");
    file.set_len(2).unwrap();
    assert_eq!(after(&disk, PowerCut::NothingUnsynced, live("a")), set([Some("abcd")]));
    assert!(after(&disk, PowerCut::RandomSubset, live("a")).is_superset(&set([Some("abcd"), Some("ab")])));
    file.sync_data().unwrap();
    file.set_len(4).unwrap();
    for cut in CUTS {
        for bytes in after(&disk, cut, live("a")) {
            assert!(b"ab\0\0".starts_with(&bytes.unwrap()), "{cut:?}");
        }
    }
}

#[test]
fn each_prefix_in_time_and_each_single_sector_can_be_asked_for() {
    let disk = disk();
    let (one, two) = (put_durably(&disk, "a", b""), put_durably(&disk, "b", &[0; 1024]));
    let op = disk.ops();
    write(&*one, 0, b"abc");
    write(&*two, 510, b"defg");
    let both =
        |disk: &SimDisk| (disk.read_live(&at("a")).unwrap(), disk.read_live(&at("b")).unwrap()[510..514].to_vec());
    let only = |cut| {
        let found = after(&disk, cut, both);
        assert_eq!(found.len(), 1, "nothing is left to chance");
        let (one, two) = found.into_iter().next().unwrap();
        String::from_utf8([one, vec![b'|'], two].concat()).unwrap()
    };
    assert_eq!(only(PowerCut::PrefixOf { op, bytes: 0 }), "|\0\0\0\0");
    assert_eq!(only(PowerCut::PrefixOf { op, bytes: 2 }), "ab|\0\0\0\0");
    assert_eq!(only(PowerCut::PrefixOf { op: op + 1, bytes: 3 }), "abc|def\0");
    assert_eq!(only(PowerCut::PrefixOf { op: op + 2, bytes: 0 }), "abc|defg");

    assert_eq!(disk.dirty_sectors(), 3);
    assert_eq!(only(PowerCut::OnlySector(0)), "abc|\0\0\0\0");
    assert_eq!(only(PowerCut::OnlySector(1)), "\0\0\0|de\0\0", "the length survives");
    assert_eq!(only(PowerCut::OnlySector(2)), "\0\0\0|\0\0fg");
    assert_eq!(only(PowerCut::AllButSector(1)), "abc|\0\0fg");
}

#[test]
fn a_write_is_torn_from_either_side_with_and_without_what_came_before() {
    let left = |cut: &dyn Fn(u64) -> PowerCut| {
        let disk = disk();
        let file = put_durably(&disk, "a", b"......");
        write(&*file, 0, b"ab");
        put(&disk, "b", b"new").sync_data().unwrap();
        let op = disk.ops();
        write(&*file, 1, b".xy.");
        assert_eq!(disk.tears(op), [1, 2, 3], "its last byte is what it was");
        disk.power_cut(cut(op));
        (disk.read_live(&at("a")).unwrap(), disk.read_live(&at("b")))
    };
    let (from, to, new) = (0, 2, Some(b"new".to_vec()));
    assert_eq!(left(&|op| PowerCut::InWrite { op, from, to, rest: Rest::All }), (b"a.x...".to_vec(), new.clone()));
    assert_eq!(left(&|op| PowerCut::InWrite { op, from, to, rest: Rest::Bytes }), (b"a.x...".to_vec(), None));
    assert_eq!(left(&|op| PowerCut::InWrite { op, from, to, rest: Rest::Nothing }), (b"..x...".to_vec(), None));
    let tail = |op| PowerCut::InWrite { op, from: 2, to: 9, rest: Rest::All };
    assert_eq!(left(&tail), (b"ab.y..".to_vec(), new));
}

#[test]
fn after_a_failed_sync_the_next_one_succeeds_and_proves_nothing() {
    let mut found = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        disk.create_dir("/d".as_ref()).unwrap();
        let file = put_durably(&disk, "a", b"old");
        disk.inject(Fault::nth(OpKind::Sync, 0, Failure::Eio));
        write(&*file, 0, b"new");
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
        file.sync_data().unwrap();
        write(&*file, 3, b"er");
        file.sync_data().unwrap();
        assert_eq!(read_all(&*file).unwrap(), b"newer", "a process reads what it wrote");
        assert_eq!(disk.dirty_sectors(), 0);
        disk.power_cut(PowerCut::Everything);
        let bytes = disk.read_live(&at("a")).unwrap();
        assert_eq!(&bytes[3..], b"er", "what was written after the failure is durable");
        found.insert(bytes[..3].to_vec());
    }
    assert!(found.contains(&b"old"[..]) && found.contains(&b"new"[..]), "{found:?}");
    assert!(found.len() > 2, "and torn: {found:?}");
}

#[test]
fn the_latch_keeps_a_second_sync_from_lying() {
    let disk = disk();
    let file = Latched::new(put_durably(&disk, "a", b"old"));
    disk.inject(Fault::nth(OpKind::Sync, 0, Failure::Eio));
    write(&file, 0, b"new");
    let ops = disk.ops();
    file.sync_data().unwrap_err();
    file.sync_data().unwrap_err();
    assert_eq!(disk.ops(), ops + 1, "the disk was asked once");
    assert_eq!(read_all(&file).unwrap(), b"new");
}

// Processes

#[test]
fn a_cut_and_a_kill_end_all_handles_and_free_the_lock() {
    let ends: [fn(&SimDisk); 2] = [|disk| disk.power_cut(PowerCut::Everything), SimDisk::process_kill];
    for end in ends {
        let disk = disk();
        let file = put_durably(&disk, "a", b"x");
        let lock = disk.lock(&at("LOCK"), "the first life").unwrap();
        assert_eq!(disk.lock(&at("LOCK"), "a second").err().unwrap().kind(), ErrorKind::WouldBlock);
        end(&disk);
        assert!(file.write_all_at(&[IoSlice::new(b"y")], 0).is_err());
        assert!(file.sync_data().is_err());
        assert!(file.read_at(&mut [0], 0).is_err());
        assert!(file.len().is_err());
        let _held = disk.lock(&at("LOCK"), "the second life").unwrap();
        drop(lock);
        let refused = disk.lock(&at("LOCK"), "a third").err().expect("a dead guard lets go of nothing");
        assert_eq!(refused.to_string(), "held by the second life");
        assert_eq!(disk.read_live(&at("a")).unwrap(), b"x");
    }
}

#[test]
fn a_kill_loses_nothing_and_syncs_nothing() {
    let disk = disk();
    put(&disk, "a", b"abc");
    disk.process_kill();
    assert_eq!(disk.read_live(&at("a")).unwrap(), b"abc");
    assert_eq!(disk.read_durable(&at("a")), None);
    disk.power_cut(PowerCut::NothingUnsynced);
    assert_eq!(disk.read_live(&at("a")), None);
}

#[test]
fn a_crash_point_ends_the_process_in_the_midst_of_a_change() {
    for (performed, left) in [
        (Performed::Nothing, &b"ab"[..]),
        (Performed::Bytes(1), b"abX"),
        (Performed::Bytes(99), b"abXYZ"),
        (Performed::All, b"abXYZ"),
    ] {
        let disk = disk();
        let file = put_durably(&disk, "a", b"ab");
        disk.crash_at(disk.ops() + 1, performed);
        file.sync_data().unwrap();
        assert!(!disk.crashed());
        assert!(file.write_all_at(&[IoSlice::new(b"XYZ")], 2).is_err());
        assert!(disk.crashed());
        assert!(file.sync_data().is_err());
        assert!(file.read_at(&mut [0], 0).is_err(), "a dead process does not even read");
        assert!(disk.open(&at("a")).is_err());
        assert!(disk.list("/d".as_ref()).is_err());
        assert!(disk.lock(&at("LOCK"), "me").is_err());
        disk.process_kill();
        assert_eq!(disk.read_live(&at("a")).unwrap(), left, "{performed:?}");
        disk.open(&at("a")).unwrap().sync_data().unwrap();
    }
}

#[test]
fn a_sync_whose_answer_was_not_heard_was_done_or_not() {
    for (performed, durable) in [(Performed::Nothing, &b""[..]), (Performed::All, b"abc")] {
        let disk = disk();
        let file = put_durably(&disk, "a", b"");
        write(&*file, 0, b"abc");
        disk.crash_at(disk.ops(), performed);
        assert!(file.sync_data().is_err());
        disk.power_cut(PowerCut::NothingUnsynced);
        assert_eq!(disk.read_live(&at("a")).unwrap(), durable);
    }
}

// Faults and room

#[test]
fn a_failed_write_lands_in_part_and_a_short_one_never_whole() {
    let mut landed = BTreeMap::from([("eio", BTreeSet::new()), ("short", BTreeSet::new())]);
    for seed in 0..100 {
        for (name, failure) in [("eio", Failure::Eio), ("short", Failure::ShortWrite)] {
            let disk = SimDisk::new(seed);
            disk.inject(Fault::nth(OpKind::Write, 0, failure));
            let file = disk.create("/a".as_ref()).unwrap();
            file.write_all_at(&[IoSlice::new(b"abc")], 0).unwrap_err();
            landed.get_mut(name).unwrap().insert(read_all(&*file).unwrap().len());
            write(&*file, 0, b"abc");
        }
    }
    assert_eq!(landed["eio"], BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(landed["short"], BTreeSet::from([0, 1, 2]));
}

#[test]
fn every_kind_of_call_can_be_made_to_fail_and_leaves_no_trace() {
    let disk = disk();
    let file = put_durably(&disk, "a", b"abc");
    let calls: [(OpKind, &dyn Fn() -> io::Result<()>); 9] = [
        (OpKind::Create, &|| disk.create(&at("new")).map(drop)),
        (OpKind::Allocate, &|| file.allocate(9)),
        (OpKind::SetLen, &|| file.set_len(1)),
        (OpKind::Rename, &|| disk.rename(&at("a"), &at("b"))),
        (OpKind::Remove, &|| disk.remove(&at("a"))),
        (OpKind::MakeDir, &|| disk.create_dir(&at("dir"))),
        (OpKind::Open, &|| disk.open(&at("a")).map(drop)),
        (OpKind::Read, &|| file.read_at(&mut [0], 0).map(drop)),
        (OpKind::List, &|| disk.list("/d".as_ref()).map(drop)),
    ];
    for (kind, call) in calls {
        disk.inject(Fault::every(kind, Failure::Os(30)));
        assert_eq!(call().unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem, "{kind:?}");
        disk.clear_faults();
        assert_eq!(disk.paths(), [at("a")]);
        assert_eq!(disk.read_live(&at("a")).unwrap(), b"abc");
        assert_eq!(disk.list(&at("dir")).err().unwrap().kind(), ErrorKind::NotFound);
    }
}

#[test]
fn room_runs_out_for_growth_only_and_comes_back() {
    let disk = disk();
    disk.set_capacity(100);
    let file = put(&disk, "a", &[1; 60]);
    file.allocate(80).unwrap();
    assert_eq!(disk.space("/d".as_ref()).unwrap(), Space { total: 100, free: 20 });
    assert_eq!(file.allocate(101).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 80, "a refused allocation takes nothing");

    let other = disk.create(&at("b")).unwrap();
    assert_eq!(other.write_all_at(&[IoSlice::new(&[2; 30])], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(other.len().unwrap(), 20, "what fits has landed");
    write(&*file, 50, &[3; 30]);
    assert_eq!(disk.space("/d".as_ref()).unwrap().free, 0);

    disk.set_capacity(50);
    write(&*file, 0, &[4; 80]);
    assert_eq!(disk.space("/d".as_ref()).unwrap(), Space { total: 50, free: 0 });

    disk.set_capacity(100);
    disk.remove(&at("a")).unwrap();
    assert_eq!(disk.space("/d".as_ref()).unwrap().free, 0, "an open file keeps its room");
    drop(file);
    assert_eq!(disk.space("/d".as_ref()).unwrap().free, 80);
    other.set_len(5).unwrap();
    assert_eq!(disk.space("/d".as_ref()).unwrap().free, 95);
}

// From outside

#[test]
fn damage_is_seen_by_readers_and_survives_a_cut() {
    let disk = disk();
    let file = put_durably(&disk, "a", b"aaa");
    disk.flip_bit(&at("a"), 9);
    assert_eq!(read_all(&*file).unwrap(), b"aca");
    disk.overwrite(&at("b"), b"foreign");
    disk.power_cut(PowerCut::NothingUnsynced);
    assert_eq!(disk.read_live(&at("a")).unwrap(), b"aca");
    assert_eq!(disk.read_live(&at("b")).unwrap(), b"foreign");
    disk.overwrite(&at("a"), b"zz");
    disk.erase(&at("b"));
    assert_eq!(disk.read_durable(&at("a")).unwrap(), b"zz");
    assert_eq!(disk.read_durable(&at("b")), None);
    assert_eq!(disk.read_live(&at("b")), None);
}

#[test]
fn a_snapshot_brings_everything_back_but_the_process() {
    let disk = disk();
    let file = put_durably(&disk, "a", b"one");
    write(&*file, 0, b"two");
    disk.crash_at(disk.ops(), Performed::Nothing);
    assert!(file.sync_data().is_err());
    let snapshot = disk.snapshot();
    disk.power_cut(PowerCut::Everything);
    disk.overwrite(&at("a"), b"three");

    disk.restore(&snapshot);
    assert!(disk.crashed());
    disk.power_cut(PowerCut::NothingUnsynced);
    assert_eq!(disk.read_live(&at("a")).unwrap(), b"one");
    let twin = SimDisk::from_snapshot(&snapshot);
    twin.power_cut(PowerCut::Everything);
    assert_eq!(twin.read_live(&at("a")).unwrap(), b"two");
    assert_eq!(disk.read_live(&at("a")).unwrap(), b"one", "another disk");
    drop(file);
}

#[test]
fn the_trace_names_every_change_with_its_index() {
    let disk = disk();
    disk.start_trace();
    let first = disk.ops();
    let file = put_durably(&disk, "a", b"abc");
    file.read_at(&mut [0], 0).unwrap();
    let trace: Vec<_> = disk.take_trace().into_iter().map(|op| (op.op - first, op.kind, op.bytes)).collect();
    assert_eq!(trace, [(0, OpKind::Create, 0), (1, OpKind::Write, 3), (2, OpKind::Sync, 0), (3, OpKind::SyncDir, 0)]);
    assert_eq!(disk.ops(), first + 4);
    assert!(disk.take_trace().is_empty());
}

#[test]
fn syncs_can_be_held_back() {
    let disk = disk();
    let file = put(&disk, "a", b"abc");
    let held = disk.hold_syncs();
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| file.sync_data());
        held.wait_for(1);
        write(&*file, 3, b"d");
        drop(held);
        syncing.join().unwrap().unwrap();
    });
    disk.sync_dir("/d".as_ref()).unwrap();
    assert_eq!(disk.read_durable(&at("a")).unwrap(), b"abcd");
}

/// Random work on a few names, with cuts, faults and kills: whatever was promised is there.
struct Life {
    disk: SimDisk,
    rng: Rng,
    /// What must survive any cut: of each name what is promised, as long as nothing un-synced touches it.
    promised: BTreeMap<&'static str, Option<Vec<u8>>>,
    digest: u64,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Life {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        disk.create_dir("/d".as_ref()).unwrap();
        Self { disk, rng: Rng::new(!seed), promised: NAMES.iter().map(|name| (*name, None)).collect(), digest: 0 }
    }

    fn step(&mut self) {
        let name = NAMES[self.rng.below(3)];
        let other = NAMES[self.rng.below(3)];
        let disk = self.disk.clone();
        match self.rng.below(10) {
            0 => {
                self.promised.remove(name);
                let _ = disk.create(&at(name));
            }
            1 => {
                self.promised.remove(name);
                let _ = disk.remove(&at(name));
            }
            2 => {
                // Even a rename that is refused: the model knows only what nobody touched.
                self.promised.remove(name);
                self.promised.remove(other);
                let _ = disk.rename(&at(name), &at(other));
            }
            3 | 4 => self.settle(),
            5 => self.cut(),
            6 => disk.process_kill(),
            _ => {
                if let Ok(file) = disk.open(&at(name)) {
                    self.promised.remove(name);
                    let bytes = vec![self.rng.below(256) as u8; self.rng.below(1_500)];
                    let position = self.rng.below(2_000) as u64;
                    match self.rng.below(5) {
                        0 => file.set_len(position).unwrap(),
                        1 => file.allocate(position).unwrap(),
                        _ => write(&*file, position, &bytes),
                    }
                }
            }
        }
    }

    /// Syncs everything: from here on all is promised.
    fn settle(&mut self) {
        for name in NAMES {
            if let Ok(file) = self.disk.open(&at(name)) {
                file.sync_data().unwrap();
            }
        }
        self.disk.sync_dir("/d".as_ref()).unwrap();
        self.promised = NAMES.iter().map(|name| (*name, self.disk.read_live(&at(name)))).collect();
    }

    fn cut(&mut self) {
        self.disk.power_cut(CUTS[self.rng.below(4)]);
        for (name, bytes) in &self.promised {
            assert_eq!(&self.disk.read_live(&at(name)), bytes, "{name}");
        }
        for name in NAMES {
            let bytes = self.disk.read_live(&at(name));
            assert_eq!(bytes, self.disk.read_durable(&at(name)), "after a cut nothing is pending");
            let bytes = bytes.unwrap_or_default();
            self.digest = bytes.iter().fold(self.digest, |digest, byte| digest.wrapping_mul(31) + u64::from(*byte));
            self.promised.insert(name, self.disk.read_live(&at(name)));
        }
        assert_eq!(self.disk.dirty_sectors(), 0);
    }
}

#[test]
fn what_was_promised_survives_any_life_and_a_seed_repeats_it() {
    let live = |seed| {
        let mut life = Life::new(seed);
        (0..200).for_each(|_| life.step());
        life.digest
    };
    let digests: Vec<u64> = (0..100).map(live).collect();
    assert_eq!(digests, (0..100).map(live).collect::<Vec<_>>());
    assert!(digests.iter().collect::<BTreeSet<_>>().len() > 90, "seeds differ");
}
