//! Every mutant has a test that exists, and the manual has the list. That they are noticed is shown by `.ci/run teeth`.

use forebay::mutants::Mutant;
use std::collections::BTreeSet;
use storage_tests::repository;
use storage_tests::teeth::{PAGE, TEETH, place};

#[test]
fn every_mutant_has_a_test_and_stands_in_the_manual() {
    let mutants: Vec<Mutant> = TEETH.iter().map(|(mutant, ..)| *mutant).collect();
    assert_eq!(mutants, Mutant::ALL);
    assert!(mutants.len() >= 30);
    let tests = repository::tests();
    let missing: BTreeSet<&str> = TEETH.iter().map(|(.., test)| *test).filter(|test| !tests.contains(*test)).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:?}");
    let page = repository::read(PAGE);
    let same = place(&page).as_deref() == Some(&*page);
    assert!(same, "{PAGE} has another list: cargo run -p storage-tests --bin teeth -- list");
}

/// A switch that nobody threw changes nothing, in this build too.
#[test]
fn no_mutant_is_on_by_itself() {
    if std::env::var_os("FOREBAY_MUTANT").is_none() {
        assert!(Mutant::ALL.iter().all(|mutant| !forebay::mutants::on(*mutant)));
    }
}
