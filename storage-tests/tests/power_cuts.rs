//! Log, floor, cursors, plans and deliveries over power cuts by chance: as many as `FOREBAY_POWER_CUTS` says.

use std::sync::Mutex;
use storage_tests::crash_points::number;
use storage_tests::crew::{self, Until};
use storage_tests::power_cuts::{Cuts, live};

#[test]
fn no_power_cut_takes_what_was_acknowledged_settled_or_planned() {
    let asked = number("FOREBAY_POWER_CUTS", 5_000);
    let sum = Mutex::new(Cuts::default());
    let life = |seed| {
        let cuts = live(seed);
        let mut sum = sum.lock().expect("no life panics in here");
        sum.all += cuts.all;
        sum.asked_for += cuts.asked_for;
        sum.nested.iter_mut().zip(cuts.nested).for_each(|(sum, cuts)| *sum += cuts);
        cuts.all
    };
    let repeat = |seed| {
        format!("FOREBAY_SEED={seed} FOREBAY_POWER_CUTS=1 cargo test -p storage-tests --test power_cuts -- --nocapture")
    };
    let done = crew::each(number("FOREBAY_SEED", 1), Until::all(asked), life, repeat);
    let cuts = sum.into_inner().expect("no life panicked");
    let Cuts { nested, asked_for, .. } = cuts;
    println!("power cuts: {done}; asked for {asked}; in recoveries, by depth: {nested:?}");
    println!("acknowledged records that were asked for after them: {asked_for}; lost: none");
    assert_eq!(cuts.all, done.count);
    assert!(asked_for > cuts.all, "each end is asked for some");
    if asked >= 1_000 {
        assert!(cuts.nested.iter().all(|depth| *depth * 30 > cuts.all), "one in ten goes three deep: {cuts:?}");
    }
}

/// A seed is a life: else no failure could be repeated. `FOREBAY_TWICE` says how many are lived twice.
#[test]
fn the_same_seed_is_the_same_life() {
    let seeds = 1..1 + number("FOREBAY_TWICE", 3).max(2);
    let lives: Vec<Cuts> = seeds.clone().map(live).collect();
    assert_eq!(lives, seeds.map(live).collect::<Vec<_>>());
    assert!(lives[0].left != lives[1].left);
}
