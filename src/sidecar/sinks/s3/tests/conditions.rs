//! Something lies there already: ours or a stranger's, seen ahead or told too late, in stores with and without conditions.

use super::*;

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
