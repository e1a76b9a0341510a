//! Cases of the rule in the parent's header, then properties over random segments and random damage.

use super::*;
use crate::log::frame::Kind;
use crate::log::limits::FRAME_HEADER_BYTES;
use crate::offset::{LogId, Sequence, StreamId};
use proptest::prelude::*;

fn identity() -> Identity {
    Identity::new(LogId(1), Sequence(1))
}

/// A segment under construction: appends of one stream, synced after each commit.
struct Segment {
    bytes: Vec<u8>,
    synced: u32,
    next: u64,
    /// Positions of all frames with the end of the commit that they belong to.
    placed: Vec<Range<u32>>,
}

impl Segment {
    fn new() -> Self {
        Self { bytes: vec![0; SEGMENT_HEADER_BYTES as usize], synced: SEGMENT_HEADER_BYTES, next: 0, placed: vec![] }
    }

    /// One commit of appends; each append is a list of payload lengths, one record a frame.
    fn commit(&mut self, appends: &[&[usize]]) {
        for append in appends {
            for (i, len) in append.iter().enumerate() {
                let payload = vec![self.next as u8 + 1; *len];
                let header = FrameHeader {
                    kind: Kind::Records,
                    stream: StreamId(0),
                    first: self.next,
                    records: 1,
                    bytes_before: 0,
                    ingest_ms: 0,
                    synced: self.synced,
                    group_first: i == 0,
                    group_last: i + 1 == append.len(),
                    payload_len: payload.len() as u32,
                    payload_crc: crc32fast::hash(&payload),
                };
                let position = self.bytes.len() as u32;
                self.bytes.extend_from_slice(&header.encode(&identity(), position));
                self.bytes.extend_from_slice(&payload);
                self.bytes.resize((position + header.stored_len()) as usize, 0);
                self.placed.push(position..position + header.stored_len());
                self.next += 1;
            }
        }
        self.synced = self.bytes.len() as u32;
    }

    fn break_frame(&mut self, i: usize) {
        let at = self.placed[i].start as usize;
        self.bytes[at..at + 20].fill(0xee);
    }

    fn kept(&self, known_synced: u32) -> (Vec<u64>, Scan) {
        let scan = scan(&identity(), &self.bytes, known_synced);
        (scan.frames.iter().map(|found| found.header.first).collect(), scan)
    }
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_append() {
    let mut segment = Segment::new();
    segment.commit(&[&[10]]);
    segment.commit(&[&[10], &[10]]);
    let torn = segment.placed[2].start as usize + 70;
    segment.bytes[torn..].fill(0);
    segment.bytes.resize(4096, 0);
    segment.bytes[segment.placed[2].start as usize + 58] ^= 1;
    let (kept, scan) = segment.kept(0);
    assert_eq!(kept, [0, 1]);
    assert_eq!(scan.end, segment.placed[1].end);
    assert!(scan.holes.is_empty(), "a torn tail is no damage");
}

#[test]
fn valid_looking_frames_behind_a_broken_one_above_the_synced_position_are_cut() {
    let mut segment = Segment::new();
    segment.commit(&[&[10]]);
    segment.commit(&[&[10], &[10], &[10]]);
    segment.break_frame(2);
    let (kept, scan) = segment.kept(0);
    assert_eq!(kept, [0, 1], "frame 3 landed, frame 2 did not: neither was acknowledged");
    assert!(scan.holes.is_empty());
}

#[test]
fn a_broken_frame_below_the_synced_position_is_damage_and_what_follows_is_read() {
    let mut segment = Segment::new();
    segment.commit(&[&[10]]);
    segment.commit(&[&[10]]);
    segment.commit(&[&[10]]);
    segment.break_frame(0);
    let (kept, scan) = segment.kept(0);
    assert_eq!(kept, [1, 2]);
    assert_eq!(scan.holes, [Hole { positions: segment.placed[0].clone(), named: None }]);
}

#[test]
fn damage_that_runs_into_a_torn_end_is_damage_as_far_as_was_synced_and_nothing_behind_it_is_kept() {
    let mut segment = Segment::new();
    segment.commit(&[&[10]]);
    segment.commit(&[&[10]]);
    segment.commit(&[&[10], &[10]]);
    segment.break_frame(1);
    segment.break_frame(2);
    let (kept, scan) = segment.kept(0);
    assert_eq!(kept, [0], "frame 3 says that frame 1 was synced, and no more");
    assert_eq!(scan.holes, [Hole { positions: segment.placed[1].clone(), named: None }]);
    assert_eq!(scan.end, segment.placed[1].end);
}

#[test]
fn of_a_segment_that_was_sealed_all_up_to_the_last_good_header_was_synced() {
    let mut segment = Segment::new();
    segment.commit(&[&[10], &[10, 10, 10]]);
    segment.break_frame(1);
    segment.bytes[segment.placed[3].start as usize + 60] ^= 4;
    segment.bytes.resize(4096, 0);
    assert_eq!(segment.kept(0).0, [0], "of one that was not");
    let scan = scan_of(true, &identity(), &segment.bytes, 0);
    let kept: Vec<u64> = scan.frames.iter().map(|found| found.header.first).collect();
    assert_eq!((kept, scan.end), (vec![0, 2], segment.placed[3].end));
    let holes: Vec<_> = scan.holes.iter().map(|hole| hole.positions.clone()).collect();
    assert_eq!(holes, [segment.placed[1].clone(), segment.placed[3].clone()]);
    let scan = scan_of(true, &identity(), &segment.bytes[..segment.placed[3].start as usize + 60], 0);
    assert_eq!(scan.holes.len(), 2, "cut short within its last frame");
    assert_eq!(scan_of(true, &identity(), &[0; 4096], 0).end, SEGMENT_HEADER_BYTES);
}

#[test]
fn a_damaged_payload_below_the_synced_position_is_named() {
    let mut segment = Segment::new();
    segment.commit(&[&[10]]);
    segment.commit(&[&[10]]);
    segment.bytes[segment.placed[0].start as usize + 60] ^= 4;
    let (kept, scan) = segment.kept(0);
    assert_eq!(kept, [1]);
    assert_eq!(scan.holes[0].named.expect("the header is good").offsets(), 0..1);
}

#[test]
fn damage_at_the_very_end_is_told_from_a_torn_tail_by_what_the_floor_recorded() {
    let mut segment = Segment::new();
    segment.commit(&[&[10]]);
    segment.commit(&[&[10]]);
    segment.break_frame(1);
    let (kept, scan) = segment.kept(0);
    assert_eq!((kept, scan.holes.len()), (vec![0], 0), "nobody says that it was synced");
    let (kept, scan) = segment.kept(segment.synced);
    assert_eq!(kept, [0]);
    assert_eq!(scan.holes, [Hole { positions: segment.placed[1].clone(), named: None }]);
    assert_eq!(scan.end, segment.synced, "acknowledged bytes are set aside, not cut");
}

#[test]
fn an_append_of_several_frames_is_kept_whole_or_dropped_whole() {
    let mut segment = Segment::new();
    segment.commit(&[&[10]]);
    segment.commit(&[&[10, 10, 10]]);
    segment.break_frame(3);
    let (kept, scan) = segment.kept(0);
    assert_eq!(kept, [0]);
    assert_eq!(scan.end, segment.placed[0].end);
}

#[test]
fn a_frame_that_begins_in_the_midst_of_an_append_is_cut_above_the_synced_position() {
    let mut segment = Segment::new();
    segment.commit(&[&[10]]);
    let synced = segment.synced;
    segment.commit(&[&[10], &[10, 10]]);
    // As if the second append had begun before it.
    let position = segment.placed[2].start;
    let at = position as usize..position as usize + FRAME_HEADER_BYTES as usize;
    let mut header = FrameHeader::decode(&identity(), position, &segment.bytes[at.clone()]).expect("a frame");
    header.group_first = false;
    segment.bytes[at].copy_from_slice(&header.encode(&identity(), position));
    let (kept, scan) = segment.kept(synced);
    assert_eq!((kept, scan.end), (vec![0, 1], position));
}

#[test]
fn a_payload_that_holds_a_frame_of_another_place_is_not_read_as_one() {
    let mut inner = Segment::new();
    inner.commit(&[&[10]]);
    let frame = inner.bytes[inner.placed[0].start as usize..].to_vec();
    let mut segment = Segment::new();
    segment.commit(&[&[10]]);
    segment.commit(&[&[200]]);
    let at = segment.placed[1].start as usize + 64;
    segment.bytes[at..at + frame.len()].copy_from_slice(&frame);
    segment.commit(&[&[10]]);
    let (kept, scan) = segment.kept(0);
    assert_eq!(kept, [0, 2]);
    assert_eq!(scan.holes.len(), 1);
}

#[test]
fn an_empty_a_zeroed_and_a_foreign_file_hold_nothing() {
    for bytes in [vec![], vec![0; 64], vec![0; 4096], vec![0xff; 4096]] {
        let scan = scan(&identity(), &bytes, 0);
        assert!(scan.frames.is_empty() && scan.holes.is_empty(), "{} bytes", bytes.len());
        assert_eq!(scan.end, SEGMENT_HEADER_BYTES);
    }
}

proptest! {
    /// Commits, then any damage to the last commit and any tail: all earlier commits are kept, none of the last is
    /// kept in part, and nothing is called damage.
    #[test]
    fn the_acknowledged_prefix_survives_any_tear(
        commits in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(0usize..60, 1..4), 1..4), 1..6),
        torn in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..40),
        tail in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut segment = Segment::new();
        let mut acknowledged = 0;
        for commit in &commits {
            acknowledged = segment.next;
            let appends: Vec<&[usize]> = commit.iter().map(Vec::as_slice).collect();
            segment.commit(&appends);
        }
        let last_from = segment.placed[acknowledged as usize].start as usize;
        let len = segment.bytes.len() - last_from;
        for (at, byte) in torn {
            segment.bytes[last_from + at.index(len)] = byte;
        }
        segment.bytes.extend_from_slice(&tail);
        let (kept, scan) = segment.kept(0);
        let expected: Vec<u64> = (0..kept.len() as u64).collect();
        prop_assert_eq!(&kept, &expected, "a prefix");
        prop_assert!(kept.len() as u64 >= acknowledged);
        prop_assert!(scan.holes.is_empty());
        let mut whole_appends = vec![acknowledged];
        for append in commits.last().expect("at least one") {
            whole_appends.push(whole_appends.last().expect("never empty") + append.len() as u64);
        }
        prop_assert!(whole_appends.contains(&(kept.len() as u64)), "appends are whole");
    }

    #[test]
    fn any_bytes_are_scanned_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), known: u32) {
        let scan = scan(&identity(), &bytes, known);
        prop_assert!(scan.frames.is_empty());
    }
}

/// Before: it was kept up to where no byte is, and opening the log panicked.
#[test]
fn a_file_that_ends_in_the_padding_of_its_last_synced_frame_is_kept_up_to_its_end() {
    let mut segment = Segment::new();
    segment.commit(&[&[100], &[5]]);
    let synced = segment.synced;
    for missing in 1..=3 {
        segment.bytes.truncate((synced - missing) as usize);
        let (kept, scan) = segment.kept(synced);
        assert_eq!((kept, scan.end), (vec![0, 1], synced - missing));
    }
}
