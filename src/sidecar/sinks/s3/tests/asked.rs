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

/// No store has to know aws-chunked or trailers: what carries bytes says how many, and is signed and summed over them.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_sent_as_they_are_with_their_sums_and_never_in_chunks_of_amazons() {
    let (_root, store, sink) = stage(PLAIN, |_| Act::Pass).await;
    assert_eq!(put(&sink, &large(0..10)).await, Outcome::Delivered);
    assert_eq!(put(&sink, &many(5_500)).await, Outcome::Delivered);
    let seen = store.seen.lock().unwrap();
    let with_bytes: Vec<_> = seen.iter().filter(|seen| ["put", "part"].contains(&seen.operation())).collect();
    assert_eq!(with_bytes.len(), 3, "one object whole, one in two parts");
    for seen in with_bytes {
        let header = |name: &str| seen.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!(
            (header("content-encoding"), header("transfer-encoding"), header("x-amz-trailer")),
            (None, None, None)
        );
        assert!(header("content-length").is_some() && header("x-amz-checksum-crc32").is_some(), "{seen:?}");
        let hash = header("x-amz-content-sha256").unwrap();
        assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    }
}

/// Both ways of sending ask for it: an object whole, and the beginning of an upload in parts.
#[tokio::test(flavor = "multi_thread")]
async fn encryption_is_asked_for_where_an_object_begins() {
    use crate::config::Encryption;

    const ASKED: [&str; 3] = [
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-bucket-key-enabled",
    ];
    let kms = Encryption::Kms { key_id: Some("key-1".to_owned()), bucket_key: false };
    let own_kms = Encryption::Kms { key_id: None, bucket_key: true };
    let table = [
        (None, [None, None, None]),
        (Some(Encryption::S3), [Some("AES256"), None, None]),
        (Some(kms), [Some("aws:kms"), Some("key-1"), Some("false")]),
        (Some(own_kms), [Some("aws:kms"), None, Some("true")]),
    ];
    for (encryption, expected) in table {
        // What the store makes of it is its own affair; this one takes no part in it.
        let (_root, store, _) = stage(PLAIN, |_| Act::Pass).await;
        let sink = sink(&S3Config { encryption, ..config(store.addr, PLAIN) });
        assert_eq!(put(&sink, &large(0..10)).await, Outcome::Delivered);
        assert_eq!(put(&sink, &many(5_500)).await, Outcome::Delivered);
        for seen in store.seen.lock().unwrap().iter() {
            let header =
                |name: &str| seen.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
            let asked = ASKED.map(header);
            let begins = ["put", "begin"].contains(&seen.operation());
            assert_eq!(asked, if begins { expected } else { [None; 3] }, "{}", seen.operation());
        }
    }
}

/// The SDK counts what is repeated by partition, for a whole process: one bad destination would use up another's.
#[tokio::test]
async fn each_destination_counts_repeats_by_itself_and_none_are_made() {
    let config = config("127.0.0.1:9".parse().unwrap(), PLAIN);
    let mut partitions = Vec::new();
    for destination in ["acme-s3", "other-s3"] {
        let clock = Arc::new(SystemClock::new());
        let sink = S3Sink::new(destination, &config, AddressPolicy::Operator, 2, Arc::default(), clock);
        let client = sink.client().await.unwrap();
        assert_eq!(client.config().retry_config().unwrap().max_attempts(), 1);
        partitions.push(client.config().retry_partition().unwrap().clone());
    }
    assert_ne!(partitions[0], partitions[1]);
}
