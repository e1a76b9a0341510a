//! Something lies there already: ours or a stranger's, seen ahead or told too late, in stores with and without conditions.

use super::*;
use crate::delivery::patience::Patience;

#[tokio::test(flavor = "multi_thread")]
async fn an_object_with_other_contents_is_never_overwritten() {
    for job in [large(0..30), many(12_000)] {
        let (root, _, sink) = stage(PLAIN, |_| Act::Pass).await;
        // The same name, other records: what a copied data directory would bring.
        let stranger = LargeJob { except: [1].into(), ..job.clone() };
        assert_eq!(put(&sink, &stranger).await, Outcome::Delivered);
        let before = objects(root.path());
        let outcome = put(&sink, &job).await;
        let Outcome::Refused { why } = &outcome else { panic!("{outcome:?}") };
        assert!(why.to_string().contains("is not overwritten"), "{why}");
        assert!(objects(root.path()) == before);
        assert_eq!(parts_left(root.path()), 0);
    }
}

/// Some stores take no notice of `If-None-Match`: what they overwrite an object with has to be the object.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditions_is_overwritten_with_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let bucket = root.path().join("impressions");
    let forgetful = bucket.clone();
    let store = serve(root.path(), move |seen| {
        if seen.operation() == "put" {
            let path = seen.path.split('?').next().unwrap().replace("%3D", "=");
            let _ = std::fs::remove_file(forgetful.join(path.trim_start_matches("/impressions/")));
        }
        Act::Pass
    })
    .await;
    std::fs::create_dir(&bucket).unwrap();
    let sink = sink(&config(store.addr, S3Format::JsonLines(LinesCompression::Zstd)));
    assert_eq!(put(&sink, &large(0..30)).await, Outcome::Delivered);
    let before = objects(root.path());
    store.forget();
    assert_eq!(put(&sink, &large(0..30)).await, Outcome::Delivered);
    assert_eq!(store.operations(), ["put"], "the store took it anew");
    assert_eq!(objects(root.path()), before);
}

/// The look found nothing, and by the end of the upload an object lies there: an earlier attempt of ours that the store was
/// still at work on, or a stranger's.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_told_at_its_end_that_something_lies_there_looks_whose_it_is() {
    let job = many(12_000);
    let stranger = LargeJob { except: [1].into(), ..job.clone() };
    for (there, expected) in [(&job, "delivered"), (&stranger, "refused")] {
        let late = Arc::new(AtomicBool::new(false));
        let (is_late, unseen) = (Arc::clone(&late), once("look", Act::Answer(error(404, "", &[]))));
        let (root, store, sink) = stage(PLAIN, move |seen| match seen.operation() {
            _ if !is_late.load(Order::SeqCst) => Act::Pass,
            "complete" => Act::Answer(error(412, "PreconditionFailed", &[])),
            _ => unseen(seen),
        })
        .await;
        assert_eq!(put(&sink, there).await, Outcome::Delivered);
        let before = objects(root.path());
        store.forget();
        late.store(true, Order::SeqCst);
        let outcome = put(&sink, &job).await;
        assert_eq!(kind(&outcome), expected, "{outcome:?}");
        let asked = store.operations();
        assert_eq!(asked[..2], ["look", "begin"], "{asked:?}");
        assert_eq!(asked[asked.len() - 3..], ["complete", "abort", "look"], "{asked:?}");
        assert!(objects(root.path()) == before, "nothing is overwritten");
        assert_eq!(parts_left(root.path()), 0);
    }
}

/// The same store without conditions, for an upload in parts whose object nobody finds: it has to be the same object.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditions_is_overwritten_in_parts_with_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let bucket = root.path().join("impressions");
    let forgetful = bucket.clone();
    let store = serve(root.path(), move |seen| {
        if seen.operation() == "look" {
            return Act::Answer(error(404, "", &[]));
        }
        if seen.operation() == "complete" {
            let path = seen.path.split('?').next().unwrap().replace("%3D", "=");
            let _ = std::fs::remove_file(forgetful.join(path.trim_start_matches("/impressions/")));
        }
        Act::Pass
    })
    .await;
    std::fs::create_dir(&bucket).unwrap();
    for format in [PLAIN, S3Format::Parquet(ParquetCompression::Snappy)] {
        let sink = sink(&config(store.addr, format));
        let mut tries = Vec::new();
        for _ in 0..2 {
            store.forget();
            assert_eq!(put(&sink, &many(5_500)).await, Outcome::Delivered);
            assert_eq!(store.operations().last(), Some(&"complete"), "{format:?}: the store took it anew");
            tries.push(objects(root.path()));
        }
        assert!(tries[0] == tries[1], "{format:?}");
    }
}

/// What was begun is not left in the bucket to be paid for.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_others_have_no_patience_with_leaves_nothing_and_comes_again_whole() {
    let (hurry, patience) = Patience::new();
    let act = move |seen: &Seen| {
        if seen.operation() == "look" {
            hurry.now();
        }
        Act::Pass
    };
    let (root, store, sink) = stage(PLAIN, act).await;
    let job = LargeJob { patience, ..many(12_000) };
    assert_eq!(kind(&put(&sink, &job).await), "retry");
    assert_eq!(store.operations(), ["look", "begin", "abort"]);
    assert_eq!((objects(root.path()).len(), parts_left(root.path())), (0, 0));
    let job = LargeJob { patience: Patience::default(), ..job };
    assert_eq!(put(&sink, &job).await, Outcome::Delivered);
    assert_eq!((objects(root.path()).len(), parts_left(root.path())), (1, 0));
}
