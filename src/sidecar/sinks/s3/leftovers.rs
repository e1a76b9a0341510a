//! Finds uploads in parts that an earlier run began and never ended, and gives them up: a bucket keeps, and bills, their
//! parts for ever.
//!
//! What always holds: only uploads of this destination of this log are touched, told by the batch's id in their names
//! (other nodes may have a destination of this name and the same bucket), and none that this process is at work on. A store that cannot list them has none taken away; a rule of the bucket's own
//! (`AbortIncompleteMultipartUpload`) is the other way.

use std::sync::PoisonError;
use std::time::Duration;

use super::key::{batch_id, owner};
use super::store::Store;
use super::upload::Live;

/// Answers to read, each with some hundred uploads: what no destination of ours leaves behind.
const PAGES_MAX: usize = 20;

/// Gives up what the owner of this batch left behind under names of this beginning. Returns how many uploads that were.
pub(super) async fn sweep(store: &Store, live: &Live, beginning: &str, batch: &str, limit: Duration) -> usize {
    let (mut after, mut given_up) = (None, 0);
    let Some((_, destination)) = owner(batch) else { return 0 };
    for _ in 0..PAGES_MAX {
        let (uploads, more) = match store.unfinished(beginning, after.as_ref(), limit).await {
            Ok(page) => page,
            Err(trouble) => {
                tracing::debug!(destination, outcome = ?trouble.outcome, "can't look for unfinished uploads");
                break;
            }
        };
        for upload in &uploads {
            let ours = batch_id(&upload.key).is_some_and(|id| owner(id) == owner(batch));
            let at_work = live.lock().unwrap_or_else(PoisonError::into_inner).contains(upload);
            if ours && !at_work && store.abort(upload, limit).await.is_ok() {
                given_up += 1;
            }
        }
        after = uploads.into_iter().next_back();
        if !more || after.is_none() {
            break;
        }
    }
    if given_up > 0 {
        tracing::info!(destination, given_up, "gave up uploads that an earlier run left unfinished");
    }
    given_up
}
