//! The table of faults by invariants has no empty and no open cell, names tests that exist, and its page is what it says.

use storage_tests::matrix::{Matrix, PAGE, TABLE};
use storage_tests::repository;

#[test]
fn no_cell_is_empty_or_open_every_test_exists_and_the_page_is_the_tables() {
    let matrix = Matrix::parse(&repository::read(TABLE)).expect("a whole table");
    assert_eq!((matrix.faults.len(), matrix.invariants.len()), (114, 11));
    assert_eq!(matrix.lacks(&repository::tests()), [""; 0]);
    println!("{}", matrix.summary());
    let same = repository::read(PAGE) == matrix.page();
    assert!(same, "{PAGE} is not what {TABLE} says: cargo run -p storage-tests --bin matrix");
}
