//! The bytes of one simulated file: what a process reads, what a crash leaves for sure, and what lies between.
//!
//! It knows no names, no faults and no other file. What always holds: applying all pending changes in order to the
//! durable bytes gives what would survive if everything did. That is what a process reads, unless a sync has failed.

use std::ops::Range;
use std::sync::Arc;

use crate::rng::Rng;

/// The unit in which un-synced bytes survive or not. Tears go finer: to the byte.
pub(super) const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Content {
    live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// Since the last sync, oldest first.
    pending: Vec<Change>,
    /// Blocks are reserved for the bytes `0..reserved`.
    reserved: u64,
    reserved_durable: u64,
}

#[derive(Clone)]
struct Change {
    op: u64,
    what: What,
}

#[derive(Clone)]
enum What {
    Write { at: usize, bytes: Arc<[u8]> },
    SetLen(usize),
    AtLeast(usize),
}

/// Which of the sectors with un-synced changes survive, when one alone decides.
#[derive(Clone, Copy)]
pub(super) enum Chosen {
    Only(usize),
    AllBut(usize),
}

/// How much of what happened to one sector survives.
#[derive(Clone, Copy, Default)]
struct Survives {
    /// The changes that survive whole, from the oldest on.
    whole: usize,
    /// If the next one survives in part: its head or its tail, cut at this byte (modulo its length).
    tear: Option<(Side, usize)>,
}

#[derive(Clone, Copy)]
enum Side {
    Head,
    Tail,
}

impl Content {
    /// Bytes that were always there.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let reserved = bytes.len() as u64;
        let bytes = Arc::new(bytes);
        Self { live: Arc::clone(&bytes), durable: bytes, pending: Vec::new(), reserved, reserved_durable: reserved }
    }

    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    pub(super) fn write(&mut self, op: u64, at: usize, bytes: Arc<[u8]>) {
        if bytes.is_empty() {
            return;
        }
        self.reserved = self.reserved.max((at + bytes.len()) as u64);
        self.change(op, What::Write { at, bytes });
    }

    pub(super) fn set_len(&mut self, op: u64, len: usize) {
        if len < self.live.len() {
            self.reserved = self.reserved.min(len as u64);
        }
        self.change(op, What::SetLen(len));
    }

    pub(super) fn allocate(&mut self, op: u64, len: usize) {
        self.reserved = self.reserved.max(len as u64);
        self.change(op, What::AtLeast(len));
    }

    pub(super) fn sync(&mut self) {
        if !self.pending.is_empty() {
            let durable = Arc::make_mut(&mut self.durable);
            self.pending.drain(..).for_each(|change| change.what.apply(durable));
        }
        self.reserved_durable = self.reserved;
    }

    /// What a failed sync does: each sector reached the disk or did not, and none is dirty any more. So the next sync
    /// has nothing to do and succeeds, while a process goes on reading what it wrote.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        self.keep_by_chance(rng);
    }

    /// A bit goes bad on the platter, and in the cache if it is there.
    pub(super) fn flip_bit(&mut self, byte: usize, bit: u32) {
        for bytes in [&mut self.live, &mut self.durable] {
            if let Some(byte) = Arc::make_mut(bytes).get_mut(byte) {
                *byte ^= 1 << bit;
            }
        }
    }

    /// The indexes of the operations that were not synced, and how many bytes each wrote here.
    pub(super) fn pending_ops(&self) -> impl Iterator<Item = (u64, usize)> {
        self.pending.iter().map(|change| match &change.what {
            What::Write { bytes, .. } => (change.op, bytes.len()),
            What::SetLen(_) | What::AtLeast(_) => (change.op, 0),
        })
    }

    /// Behind which bytes of the write `op` a tear makes a difference, to what is durable or to that with all changes.
    pub(super) fn tears(&self, op: u64) -> Vec<usize> {
        let mut before = self.durable.to_vec();
        for change in &self.pending {
            if let What::Write { at, bytes } = &change.what
                && change.op == op
            {
                let differs = |i: &usize| [&self.durable, &before].iter().any(|old| old.get(at + i) != bytes.get(*i));
                return (0..bytes.len()).filter(differs).map(|i| i + 1).collect();
            }
            change.what.apply(&mut before);
        }
        Vec::new()
    }

    /// How many sectors have un-synced changes.
    pub(super) fn dirty_sectors(&self) -> usize {
        Pieces::of(&self.durable, &self.pending).versions.iter().filter(|versions| **versions > 0).count()
    }

    // What a crash leaves. Each of these ends with nothing pending and live equal to durable, save `keep_by_chance`,
    // which is also how a sync fails: there the caller follows with `forget_live`.

    /// The process finds on its return what is durable.
    pub(super) fn forget_live(&mut self) {
        self.pending.clear();
        self.live = Arc::clone(&self.durable);
        self.reserved = self.reserved_durable.max(self.live.len() as u64);
        self.reserved_durable = self.reserved;
    }

    /// What happened before operation `op` survives, and the first `bytes` of it if it wrote.
    pub(super) fn keep_before(&mut self, op: u64, bytes: usize) {
        for change in std::mem::take(&mut self.pending) {
            let durable = Arc::make_mut(&mut self.durable);
            match change.what {
                what if change.op < op => what.apply(durable),
                What::Write { at, bytes: written } if change.op == op && bytes > 0 => {
                    write_to(durable, at, &written[..bytes.min(written.len())]);
                }
                _ => {}
            }
        }
    }

    /// Of the write `op` these bytes survive, and of all else everything or nothing.
    pub(super) fn keep_part(&mut self, op: u64, part: &Range<usize>, others: bool) {
        for change in std::mem::take(&mut self.pending) {
            match change.what {
                What::Write { at, bytes } if change.op == op => {
                    let part = part.start.min(bytes.len())..part.end.min(bytes.len());
                    if !part.is_empty() {
                        write_to(Arc::make_mut(&mut self.durable), at + part.start, &bytes[part]);
                    }
                }
                what if others => what.apply(Arc::make_mut(&mut self.durable)),
                _ => {}
            }
        }
    }

    /// Each sector on its own keeps all, none, or the older part of its changes, perhaps torn. So does the length.
    pub(super) fn keep_by_chance(&mut self, rng: &mut Rng) {
        if self.pending.is_empty() {
            return;
        }
        // Without this nearly every long write would lose about half of its sectors, and never just one or all but one.
        let odds = [1, 4, 7][rng.below(3)];
        let pieces = Pieces::of(&self.durable, &self.pending);
        let len = pieces.len_by_chance(rng);
        let image = pieces.image(len, |_, versions| match rng.chance(odds, 8) {
            true => Survives { whole: versions, tear: None },
            false => Survives {
                whole: rng.below(versions),
                tear: match rng.below(3) {
                    0 => Some((Side::Head, rng.below(usize::MAX))),
                    1 => Some((Side::Tail, rng.below(usize::MAX))),
                    _ => None,
                },
            },
        });
        self.durable = Arc::new(image);
        self.pending.clear();
    }

    /// Of the dirty sectors (counted from 0 in order of position) those chosen survive, and the length.
    pub(super) fn keep_sectors(&mut self, chosen: Chosen) {
        if self.pending.is_empty() {
            return;
        }
        let pieces = Pieces::of(&self.durable, &self.pending);
        let len = *pieces.lens.last().expect("at least the durable length");
        let image = pieces.image(len, |nth, versions| {
            let survives = match chosen {
                Chosen::Only(sector) => nth == sector,
                Chosen::AllBut(sector) => nth != sector,
            };
            Survives { whole: if survives { versions } else { 0 }, tear: None }
        });
        self.durable = Arc::new(image);
        self.pending.clear();
    }

    fn change(&mut self, op: u64, what: What) {
        what.apply(Arc::make_mut(&mut self.live));
        self.pending.push(Change { op, what });
    }
}

impl What {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => write_to(image, *at, bytes),
            Self::SetLen(len) => set_len(image, *len),
            Self::AtLeast(len) => set_len(image, image.len().max(*len)),
        }
    }
}

/// The pending changes of a file, cut into pieces no larger than a sector.
struct Pieces<'a> {
    durable: &'a [u8],
    /// Where, and with which bytes; none are zeros (what a cut leaves).
    ranges: Vec<(usize, usize, Option<&'a [u8]>)>,
    /// The durable length, and the length after each change.
    lens: Vec<usize>,
    /// The longest the file has been.
    high: usize,
    /// Sector to the number of changes that touch it.
    versions: Vec<usize>,
}

impl<'a> Pieces<'a> {
    fn of(durable: &'a [u8], pending: &'a [Change]) -> Self {
        let mut ranges = Vec::with_capacity(pending.len());
        let mut lens = vec![durable.len()];
        let mut len = durable.len();
        for change in pending {
            match &change.what {
                What::Write { at, bytes } => {
                    len = len.max(at + bytes.len());
                    ranges.push((*at, at + bytes.len(), Some(&bytes[..])));
                }
                What::SetLen(new) => {
                    if *new < len {
                        ranges.push((*new, len, None));
                    }
                    len = *new;
                }
                What::AtLeast(new) => len = len.max(*new),
            }
            lens.push(len);
        }
        let high = lens.iter().copied().max().unwrap_or(0);
        let mut versions = vec![0; high.div_ceil(SECTOR_BYTES)];
        for (start, end, _) in &ranges {
            versions[start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)].iter_mut().for_each(|n| *n += 1);
        }
        Self { durable, ranges, lens, high, versions }
    }

    /// Builds the bytes that a crash leaves. `survives` is asked once per dirty sector, in order of position, with
    /// its number among the dirty ones and how many changes touch it.
    fn image(&self, len: usize, mut survives: impl FnMut(usize, usize) -> Survives) -> Vec<u8> {
        let mut left = vec![Survives::default(); self.versions.len()];
        let dirty = self.versions.iter().enumerate().filter(|(_, versions)| **versions > 0);
        for (nth, (sector, versions)) in dirty.enumerate() {
            left[sector] = survives(nth, *versions);
        }
        let mut image = self.durable.to_vec();
        set_len(&mut image, self.high.max(self.durable.len()));
        for (start, end, bytes) in &self.ranges {
            let sectors = start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
            for (left, sector) in left[sectors.clone()].iter_mut().zip(sectors) {
                let from = (*start).max(sector * SECTOR_BYTES);
                let to = (*end).min((sector + 1) * SECTOR_BYTES);
                let (from, to) = left.of_next(from, to);
                match bytes {
                    Some(bytes) => image[from..to].copy_from_slice(&bytes[from - start..to - start]),
                    None => image[from..to].fill(0),
                }
            }
        }
        set_len(&mut image, len);
        image
    }

    /// The length is written on its own: the old, the new, or anything between the least and the greatest.
    fn len_by_chance(&self, rng: &mut Rng) -> usize {
        let (first, last) = (self.lens[0], self.lens[self.lens.len() - 1]);
        let low = self.lens.iter().copied().min().unwrap_or(first);
        match rng.below(4) {
            0 => first,
            1 => low + rng.below(self.high - low + 1),
            _ => last,
        }
    }
}

impl Survives {
    /// What of the next change to this sector, which covers `from..to`, survives.
    fn of_next(&mut self, from: usize, to: usize) -> (usize, usize) {
        if self.whole > 0 {
            self.whole -= 1;
            return (from, to);
        }
        match self.tear.take() {
            None => (from, from),
            Some((Side::Head, cut)) => (from, from + cut % (to - from + 1)),
            Some((Side::Tail, cut)) => (from + cut % (to - from + 1), to),
        }
    }
}

/// `Vec::resize`, without going through the new bytes one by one as a debug build of it does: a third of all time.
fn set_len(image: &mut Vec<u8>, len: usize) {
    match image.len() {
        old if old < len => {
            let shorter = std::mem::replace(image, vec![0; len]);
            image[..old].copy_from_slice(&shorter);
        }
        _ => image.truncate(len),
    }
}

fn write_to(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if image.len() < end {
        set_len(image, end);
    }
    image[at..end].copy_from_slice(bytes);
}
