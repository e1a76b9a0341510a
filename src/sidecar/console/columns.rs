//! Rows as an aligned table: the one renderer for all commands. Pure.
//!
//! Two spaces between columns, no lines, no colours: it can be read on any terminal and cut by any tool.

use std::fmt::Write as _;

/// One line a row, each column as wide as its widest cell. `right` says which columns stand to the right: numbers do,
/// words do not.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]], right: [bool; N]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(widths).zip(right) {
            // Writing to a String cannot fail.
            let _ = if right { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_numbers_right_and_no_line_ends_in_spaces() {
        let rows =
            [["NAME", "N", "STATE"], ["é", "1,234", ""], ["long name", "5", "ok"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            aligned(&rows, [false, true, false]),
            "NAME           N  STATE\né          1,234\nlong name      5  ok\n"
        );
    }
}
