//! Who is at work at which desk, so that whoever ends a destination can wait for them, and keep others out.
//!
//! Work at a desk waits for the disk on threads of its own and outlives the loop that asked for it. What always holds:
//! whoever is let in is waited for; at a desk that is closed nobody begins anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The doors of all desks. An idle desk costs nothing here.
#[derive(Default)]
pub(super) struct Doors {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    inside: BTreeMap<Arc<str>, usize>,
    closed: BTreeSet<Arc<str>>,
}

/// Somebody at work at a desk; ends when it is dropped.
pub(super) struct Inside {
    doors: Arc<Doors>,
    desk: Arc<str>,
}

impl Doors {
    /// Lets somebody in. `None` if the desk is closed.
    pub(super) fn enter(self: &Arc<Self>, desk: &Arc<str>) -> Option<Inside> {
        let mut state = self.state();
        if state.closed.contains(desk) {
            return None;
        }
        *state.inside.entry(Arc::clone(desk)).or_default() += 1;
        Some(Inside { doors: Arc::clone(self), desk: Arc::clone(desk) })
    }

    /// Lets nobody in any more, and waits until those inside have left. Blocks.
    pub(super) fn close(&self, desk: &str) {
        self.state().closed.insert(desk.into());
        self.wait(|state| state.inside.contains_key(desk));
    }

    /// Takes a [`close`](Self::close) back.
    pub(super) fn open(&self, desk: &str) {
        self.state().closed.remove(desk);
    }

    /// Waits until those that are at a desk now have left. Blocks. Nobody may be let in meanwhile.
    pub(super) fn wait_for(&self, desk: &str) {
        self.wait(|state| state.inside.contains_key(desk));
    }

    /// The same for all desks.
    pub(super) fn wait_for_all(&self) {
        self.wait(|state| !state.inside.is_empty());
    }

    fn wait(&self, busy: impl Fn(&State) -> bool) {
        let state = self.left.wait_while(self.state(), |state| busy(state));
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change under this lock is whole or has not begun.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut state = self.doors.state();
        if let Some(inside) = state.inside.get_mut(&self.desk) {
            *inside -= 1;
            if *inside == 0 {
                state.inside.remove(&self.desk);
            }
        }
        drop(state);
        self.doors.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_closes_waits_for_those_inside_and_lets_nobody_in() {
        let doors = Arc::new(Doors::default());
        let (hook, other): (Arc<str>, Arc<str>) = ("hook".into(), "other".into());
        let inside = (doors.enter(&hook).unwrap(), doors.enter(&hook).unwrap());
        let _elsewhere = doors.enter(&other).unwrap();
        let (theirs, closed) = (Arc::clone(&doors), Arc::new(Mutex::new(false)));
        let says = Arc::clone(&closed);
        let closing = std::thread::spawn(move || {
            theirs.close("hook");
            *says.lock().unwrap() = true;
        });
        while doors.enter(&hook).is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(inside.0);
        assert!(!*closed.lock().unwrap(), "one is inside still");
        drop(inside.1);
        closing.join().unwrap();
        assert!(doors.enter(&hook).is_none());
        doors.open("hook");
        assert!(doors.enter(&hook).is_some());
        doors.wait_for("hook");
    }
}
