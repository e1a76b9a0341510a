//! Reads a floor, whatever state it is in: which slot of a page holds, which page of an entry, and what is damage.

use super::page::{self, Body, Header, Slot};
use super::{FloorDamage, FloorEntry, FloorError, FloorFile, PageState};
use crate::disk::{File, is_media_error, read_exact_at};
use crate::queue::limits::{FLOOR_PAGES_MAX, FLOOR_SLOT_BYTES};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

impl FloorFile {
    /// Takes up what the sound slots hold, and names what is not sound.
    ///
    /// A slot that the disk refuses to read is as good as a damaged one where the page's other slot is sound. Where
    /// neither can be used it is no damage: it may be read with the next try, and what is called lost is lost for good.
    pub(super) fn read(&mut self, file: &dyn File, path: &Path) -> Result<Vec<FloorDamage>, FloorError> {
        let bytes = file.len().map_err(|source| FloorError::Io { what: "measure", path: path.to_owned(), source })?;
        let slots = usize::try_from(bytes / FLOOR_SLOT_BYTES as u64).unwrap_or(usize::MAX).min(FLOOR_PAGES_MAX * 2);
        let refuse = |source| FloorError::Io { what: "read", path: path.to_owned(), source };
        let (mut found, mut refused) = (Vec::<[Option<(Header, Body)>; 2]>::new(), BTreeMap::new());
        for at in 0..slots {
            let (page, slot) = (at / 2, at % 2);
            if slot == 0 {
                found.push([None, None]);
            }
            found[page][slot] = match read_slot(file, at) {
                Ok(Slot::Good(header, body)) => Some((header, body)),
                Ok(Slot::Bad) => None,
                Ok(Slot::Newer(version)) => return Err(FloorError::NewerFormat { path: path.to_owned(), version }),
                Err(error) if is_media_error(&error) => {
                    tracing::warn!(path = %path.display(), page, slot, %error, "a slot of the floor cannot be read");
                    refused.insert(page, error);
                    None
                }
                Err(error) => return Err(refuse(error)),
            };
        }
        // The newest slot says what the file is; a slot that says otherwise came from elsewhere.
        let newest = found.iter().flatten().flatten().map(|(header, _)| *header).max_by_key(|header| header.generation);
        let Some(newest) = newest else {
            let whole = Ok(vec![FloorDamage::Whole { bytes }]);
            return refused.pop_first().map_or(whole, |(_, error)| Err(refuse(error)));
        };
        (self.generation, self.log_id, self.pinned) = (newest.generation, newest.log_id, newest.pinned);
        let kin = |header: &Header| header.log_id == newest.log_id && header.pages == newest.pages;

        let mut damage = Vec::new();
        let expected = u64::from(newest.pages) * 2 * FLOOR_SLOT_BYTES as u64;
        if bytes < expected {
            damage.push(FloorDamage::Truncated { bytes, expected });
        }
        self.pages = vec![PageState::default(); newest.pages as usize];
        self.placement = vec![Vec::new(); newest.pages as usize];
        let mut homes = HashMap::new();
        for (number, slots) in (0..newest.pages).zip(found.into_iter().chain(std::iter::repeat_with(|| [None, None]))) {
            let slots = slots.map(|slot| slot.filter(|(header, _)| kin(header)));
            let generations = slots.each_ref().map(|slot| slot.as_ref().map_or(0, |(header, _)| header.generation));
            self.pages[number as usize].slots = generations;
            if generations.contains(&0) {
                self.changed.insert(number as usize); // makes the bad slot good again
            }
            if let [Some((_, first)), Some((_, second))] = &slots
                && first != second
            {
                self.lagging.insert(number as usize);
            }
            let taken = slots.into_iter().flatten().max_by_key(|(header, _)| header.generation);
            if let (None, Some(error)) = (&taken, refused.remove(&(number as usize))) {
                return Err(refuse(error));
            }
            match taken {
                None if u64::from(number) * 2 * (FLOOR_SLOT_BYTES as u64) < bytes => {
                    damage.push(FloorDamage::Page { page: number });
                }
                None => {} // behind the end: named once, as truncated
                Some((_, Body::Marks(marks))) => self.synced = marks,
                Some((header, Body::Entries(entries))) => self.take_entries(header, entries, &mut homes),
            }
        }
        Ok(damage)
    }

    /// Takes up the entries of a page. One that another page has too was moved, and a crash came between the rounds:
    /// the newer home holds, and is the only slot with it until the next commit.
    fn take_entries(&mut self, header: Header, entries: Vec<FloorEntry>, homes: &mut HashMap<Key, (u64, u32)>) {
        for entry in entries {
            let key = (Arc::clone(&entry.destination), Arc::clone(&entry.stream));
            let id = match homes.get(&key) {
                None => {
                    self.entries.push(entry);
                    self.page_of.push(header.page);
                    u32::try_from(self.entries.len() - 1).expect("a page holds a few dozen")
                }
                Some(&(generation, id)) => {
                    let other = self.page_of[id as usize] as usize;
                    self.changed.extend([other, header.page as usize]);
                    if header.generation <= generation {
                        self.single.insert(other);
                        continue;
                    }
                    self.single.insert(header.page as usize);
                    self.placement[other].retain(|there| *there != id);
                    self.entries[id] = entry;
                    self.page_of[id as usize] = header.page;
                    id
                }
            };
            homes.insert(key, (header.generation, id));
            self.placement[header.page as usize].push(id);
        }
    }
}

/// Destination and stream.
type Key = (Arc<str>, Arc<str>);

/// Reads the slot with this number, all of which is in the file.
fn read_slot(file: &dyn File, at: usize) -> io::Result<Slot> {
    let mut bytes = vec![0; FLOOR_SLOT_BYTES];
    let page = u32::try_from(at / 2).expect("at most 65,536 pages");
    read_exact_at(file, &mut bytes, (at * FLOOR_SLOT_BYTES) as u64)?;
    Ok(page::decode(&bytes, page))
}
