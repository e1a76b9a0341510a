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
    // Patience may run out before the answer to the look is there.
    let asked = store.operations();
    assert!([&["look"][..], &["look", "begin", "abort"]].contains(&&*asked), "{asked:?}");
    assert_eq!((objects(root.path()).len(), parts_left(root.path())), (0, 0));
    let job = LargeJob { patience: Patience::default(), ..job };
    assert_eq!(put(&sink, &job).await, Outcome::Delivered);
    assert_eq!((objects(root.path()).len(), parts_left(root.path())), (1, 0));
}

/// As a queue names its batches: with the log and the destination in it, by which left-overs are told.
fn named(job: LargeJob) -> LargeJob {
    LargeJob { id: format!("{}BABDCPoCH0acme-s3", "A".repeat(22)).into(), ..job }
}

/// What an earlier run left behind is looked for before an object is sent, which a store could draw out for hours: page
/// behind page, each just before its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lists_for_ever_is_not_listened_to_for_ever() {
    let page = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListMultipartUploadsResult><Bucket>impressions</Bucket>\
                <IsTruncated>true</IsTruncated><Upload><Key>one</Key><UploadId>upload-1</UploadId></Upload>\
                </ListMultipartUploadsResult>";
    let act = move |seen: &Seen| match seen.operation() {
        "list uploads" => Act::Late(Duration::from_millis(1_200), Response::new(Full::from(page))),
        _ => Act::Pass,
    };
    let (_root, store, sink) = stage(PLAIN, act).await;
    assert_eq!(sink.put(&named(large(0..10)), Duration::from_secs(3)).await, Outcome::Delivered);
    let asked = store.operations();
    let lists = asked.iter().filter(|operation| **operation == "list uploads").count();
    assert!((1..=3).contains(&lists) && asked.last() == Some(&"put"), "{asked:?}");
    store.forget();
    assert_eq!(sink.put(&named(large(10..20)), Duration::from_secs(3)).await, Outcome::Delivered);
    assert_eq!(store.operations(), ["put"], "nor is it asked again");
}

/// Before, patience counted while parts were sent, and at no other time.
#[tokio::test(flavor = "multi_thread")]
async fn others_patience_counts_whatever_the_store_is_asked() {
    for slow in ["list uploads", "put", "look", "begin", "part", "complete"] {
        let (hurry, patience) = Patience::new();
        let act = move |seen: &Seen| {
            if seen.operation() == slow {
                hurry.now();
                return Act::Hang;
            }
            Act::Pass
        };
        let (_root, _store, sink) = stage(PLAIN, act).await;
        let job = if slow == "put" { large(0..10) } else { many(5_500) };
        let job = LargeJob { patience, ..named(job) };
        let put = tokio::time::timeout(Duration::from_secs(25), put(&sink, &job)).await;
        let outcome = put.unwrap_or_else(|_| panic!("{slow}: it waits for the store"));
        assert_eq!(kind(&outcome), "retry", "{slow}: {outcome:?}");
    }
}

/// It came first again for ever, and nothing behind it was ever sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_record_that_can_not_be_read_back_is_rejected_so_that_it_is_searched_for() {
    for format in [PLAIN, S3Format::Parquet(ParquetCompression::Zstd)] {
        let (root, store, sink) = stage(format, |_| Act::Pass).await;
        let mut job = crate::sinks::sample::job(0..30);
        job.parts[1].payload = Bytes::from_static(b"\xff");
        let outcome = put(&sink, &super::super::sample::of(job)).await;
        assert!(matches!(outcome, Outcome::Rejected { why: Failure::Local(_) }), "{outcome:?}");
        assert_eq!((objects(root.path()).len(), store.operations().contains(&"put")), (0, false));
    }
}
