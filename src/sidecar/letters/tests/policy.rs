//! What lets dead letters go without anybody asking.

use super::*;

#[test]
fn only_a_policy_lets_dead_letters_go_by_themselves() {
    let house = House::new();
    house.append(30);
    house.deliver(10, &[1, 2]);
    house.clock.advance(Duration::from_secs(3600));
    house.deliver(10, &[12, 13]);
    house.tend();
    assert_eq!(house.dead(), [1, 2, 12, 13]);
    let age_max = Some(Duration::from_secs(1800));
    house.desk().set_policy(Policy { age_max, bytes_max: None });
    house.tend();
    assert_eq!(house.dead(), [12, 13]);
    house.deliver(10, &[25]);
    let two = house.desk().dead().bytes - 1;
    house.desk().set_policy(Policy { age_max, bytes_max: Some(two) });
    house.tend();
    assert_eq!(house.dead(), [25], "a frame of the oldest");
    let balance = house.sheet();
    assert!(balance.closes());
    assert_eq!((balance.expired.records, balance.dead_lettered.records, balance.delivered.records), (4, 1, 25));
}

/// Before, the wall clock was taken as it was: a jump of it let letters go that nobody could call back.
#[test]
fn a_jump_of_the_wall_clock_lets_no_dead_letter_go() {
    let house = House::new();
    house.append(40);
    house.deliver(10, &[1, 2]);
    house.main.mark_oldest(forebay::Much::OlderThan(u64::MAX)).unwrap();
    house.desk().set_policy(Policy { age_max: Some(Duration::from_secs(1_800)), bytes_max: None });
    house.clock.advance(Duration::from_secs(1_000));
    house.tend();
    let (wall_ms, monotonic) = (house.clock.wall_ms(), house.clock.monotonic());
    let month = 30 * 24 * 3_600;
    // It jumps by a month, the monotonic one goes on, and somebody sets it right again.
    let after = |seconds: u64, jumped: u64| Now {
        wall_ms: wall_ms + (jumped + seconds) * 1_000,
        monotonic: monotonic + Duration::from_secs(seconds),
    };
    for seconds in [1, 2, 700, 3_500] {
        house.letters.tend(after(seconds, month));
    }
    assert_eq!((house.dead(), house.main.marked().0.len()), (vec![1, 2], 1));
    house.letters.tend(after(3_501, 0));
    house.letters.tend(after(7_100, 0));
    assert_eq!((house.dead(), house.main.marked().0.len()), (vec![1, 2], 1), "that was a jump, too");
    house.letters.tend(after(7_101, 0));
    assert_eq!((house.dead(), house.main.marked().0.len()), (vec![], 0), "an hour later ages count");
}
