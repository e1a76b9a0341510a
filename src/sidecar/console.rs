//! What people see on a terminal: numbers in words, aligned columns, the table of lags. For `cli` and `demo` alike.
//!
//! Pure: makes text of values and writes nothing. What programs read is made elsewhere.

pub(crate) mod columns;
pub(crate) mod lag_table;
pub(crate) mod units;

pub(crate) use columns::aligned;

/// Home, then clear to the end: what follows is drawn over what was there.
pub(crate) const CLEAR: &str = "\x1b[H\x1b[2J";
