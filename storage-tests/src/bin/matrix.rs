//! Prints the table of faults by invariants and writes its page. Fails where a cell is empty or
//! open, or a test is not there.

use std::process::ExitCode;
use storage_tests::matrix::{Matrix, PAGE, TABLE};
use storage_tests::repository;

fn main() -> ExitCode {
    let matrix = match Matrix::parse(&repository::read(TABLE)) {
        Ok(matrix) => matrix,
        Err(wrong) => {
            wrong.iter().for_each(|what| eprintln!("{TABLE}: {what}"));
            return ExitCode::FAILURE;
        }
    };
    let lacks = matrix.lacks(&repository::tests());
    lacks.iter().for_each(|what| eprintln!("{TABLE}: {what}"));
    let page = matrix.page();
    println!("{page}\n{}", matrix.summary());
    match repository::write(PAGE, &page) {
        Ok(()) if lacks.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{PAGE}: {e}");
            ExitCode::FAILURE
        }
    }
}
