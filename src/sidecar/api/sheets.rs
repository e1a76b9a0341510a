//! The balance sheet of each destination, over all of its queues and its letters'. Only looks.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay::{Balance, Queue};

use crate::delivery::sheet::sheet;
use crate::letters::Letters;

/// By destination.
pub(super) type Sheets = BTreeMap<Arc<str>, Balance>;

/// The sheets of those destinations that are `wanted`. Replays have books of their own and are left out.
pub(super) fn of(queues: &[Queue], letters: Option<&Letters>, wanted: impl Fn(&str) -> bool) -> Sheets {
    let mut balances: BTreeMap<Arc<str>, Vec<(Arc<str>, Balance)>> = BTreeMap::new();
    for queue in queues.iter().filter(|queue| queue.replay().is_none() && wanted(queue.destination())) {
        balances.entry(queue.destination_name()).or_default().push((queue.stream_name(), queue.balance()));
    }
    let sheet = |(destination, queues): (Arc<str>, Vec<(Arc<str>, Balance)>)| {
        let in_doubt = letters.map(|letters| letters.in_doubt(&destination)).unwrap_or_default();
        let sheet = sheet(queues.iter().map(|(stream, balance)| (&**stream, *balance)), in_doubt);
        (destination, sheet)
    };
    balances.into_iter().map(sheet).collect()
}
