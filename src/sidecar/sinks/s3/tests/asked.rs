//! What the store is asked for, header by header.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_asks_of_the_store_is_asked_of_it() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("impressions")).unwrap();
    let store = serve(root.path(), |_| Act::Pass).await;
    let config = S3Config {
        encryption: Some(crate::config::Encryption::Kms {
            key_id: Some("arn:aws:kms:key/1".to_owned()),
            bucket_key: true,
        }),
        storage_class: Some("STANDARD".to_owned()),
        ..config(store.addr, S3Format::Parquet(ParquetCompression::Snappy))
    };
    assert_eq!(put(&sink(&config), &large(0..10)).await, Outcome::Delivered);
    let mut requests = String::new();
    for seen in store.seen.lock().unwrap().iter() {
        requests.push_str(&format!("{} {}\n", seen.method, seen.path));
        let mut headers = seen.headers.clone();
        headers.sort();
        for (name, value) in &headers {
            let varies =
                ["authorization", "x-amz-date", "host", "amz-sdk-invocation-id", "x-amz-user-agent", "user-agent"];
            let value = if varies.contains(&name.as_str()) { "…" } else { value.as_str() };
            requests.push_str(&format!("{name}: {value}\n"));
        }
        requests.push('\n');
    }
    insta::assert_snapshot!(requests);
}
