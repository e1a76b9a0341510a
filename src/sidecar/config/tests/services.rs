//! Buckets and event services.

use super::*;

fn amplitude(keys: &str) -> String {
    with_destination(&format!("type = \"amplitude\"\napi_key = \"env:KEY\"\n{keys}"))
}

fn segment(keys: &str) -> String {
    with_destination(&format!("type = \"segment\"\nwrite_key = \"env:KEY\"\n{keys}"))
}

fn s3(keys: &str) -> String {
    with_destination(&format!("type = \"s3\"\n{keys}"))
}

/// The shape that was agreed on before any of these was built. Before, an `endpoint` beside a `region` was refused.
const AGREED: &str = r#"
data_dir = "./data"
[[environments]]
id = "acme-prod"
sdk_keys = ["env:ACME_SDK_KEY"]
[[destinations]]
id = "acme-s3"
environments = ["acme-prod"]
type = "s3"
bucket = "acme-impressions"
prefix = "impressions/"
region = "us-east-1"
endpoint = "http://127.0.0.1:9100"     # optional
path_style = true
format = "jsonl"                       # or "parquet"
compression = "zstd"                   # "gzip", "snappy", "none"
max_bytes = "128MiB"
max_age = "5m"
max_records = 1000000
access_key_id = "env:S3_KEY"           # else the credentials chain
secret_access_key = "env:S3_SECRET"
[[destinations]]
id = "acme-amplitude"
environments = ["acme-prod"]
type = "amplitude"
api_key = "env:AMPLITUDE_KEY"
api = "batch"                          # or "http-v2"
region = "us"                          # or "eu"
endpoint = "http://127.0.0.1:9101/batch"   # optional override
[[destinations]]
id = "acme-segment"
environments = ["acme-prod"]
type = "segment"
write_key = "env:SEGMENT_KEY"
endpoint = "http://127.0.0.1:9102/v1/batch"
[[destinations]]
id = "split"
environments = ["acme-prod"]
type = "upstream"
url = "http://127.0.0.1:9103/api"
"#;

#[test]
fn the_agreed_shape_of_buckets_services_and_upstreams_is_taken_without_a_word() {
    let (config, findings) = check_text(AGREED);
    assert_eq!(told(&findings), Vec::<String>::new());
    let destinations = config.expect("no finding is an error").destinations;
    let [bucket, amplitude, segment, split] = destinations.as_slice() else { panic!("four destinations") };
    let SinkConfig::S3(s3) = &bucket.sink else { panic!("a bucket") };
    assert_eq!((s3.bucket.as_str(), s3.path_style, s3.keys.is_some()), ("acme-impressions", true, true));
    assert_eq!(
        s3.endpoint.as_ref().map(|endpoint| endpoint.uri().to_string()).as_deref(),
        Some("http://127.0.0.1:9100/")
    );
    assert_eq!(s3.format, S3Format::JsonLines(LinesCompression::Zstd));
    assert_eq!((bucket.batch_records_max, bucket.batch_bytes_max), (1_000_000, 128 << 20));
    assert_eq!(bucket.batch_wait_max, Duration::from_secs(300));
    let SinkConfig::Amplitude(amplitude) = &amplitude.sink else { panic!("amplitude") };
    assert_eq!(
        (amplitude.api, amplitude.url().uri().to_string()),
        (AmplitudeApi::Batch, "http://127.0.0.1:9101/batch".into())
    );
    assert_eq!(amplitude.api_key.reveal(), "AMPLITUDE_KEY-value");
    let SinkConfig::Segment(segment) = &segment.sink else { panic!("segment") };
    assert_eq!(segment.url().uri().to_string(), "http://127.0.0.1:9102/v1/batch");
    let SinkConfig::Upstream(split) = &split.sink else { panic!("an upstream") };
    assert_eq!(split.events.below("events/bulk").unwrap(), "http://127.0.0.1:9103/api/events/bulk");
    assert_eq!(split.telemetry.below("keys/ss").unwrap(), "http://127.0.0.1:9103/api/v1/keys/ss");
}

#[test]
fn a_bucket_needs_no_more_than_its_name() {
    let destination = added(&s3("bucket = \"acme-impressions\""));
    let SinkConfig::S3(s3) = &destination.sink else { panic!("a bucket") };
    assert_eq!(s3.prefix.fill("e", "2026-01-01", "07"), "environment=e/date=2026-01-01/hour=07/");
    assert_eq!((s3.region.as_str(), s3.path_style), ("us-east-1", false));
    assert_eq!(destination.batch_wait_max, Duration::from_secs(300));
    assert_eq!(s3.format, S3Format::JsonLines(LinesCompression::Zstd));
    assert_eq!((destination.batch_records_max, destination.batch_bytes_max), (1_000_000, 128 << 20));
    assert!(s3.keys.is_none() && s3.assume_role.is_none() && s3.encryption.is_none());
}

#[test]
fn all_that_a_bucket_can_be_told_is_heard() {
    let destination = added(&s3(r#"bucket = "acme-impressions"
prefix = "impressions/"
partitions = "day={date}/"
region = "eu-central-1"
endpoint = "http://127.0.0.1:9100"
path_style = true
format = "parquet"
compression = "snappy"
max_bytes = "1GiB"
max_age = "10s"
max_records = 5
access_key_id = "env:S3_KEY"
secret_access_key = "env:S3_SECRET"
assume_role = { role_arn = "arn:aws:iam::123456789012:role/forebay", external_id = "acme-42" }
encryption = "kms"
kms_key_id = "alias/acme"
storage_class = "STANDARD_IA""#));
    let SinkConfig::S3(s3) = &destination.sink else { panic!("a bucket") };
    assert_eq!(s3.prefix.fill("e", "2026-01-01", "07"), "impressions/day=2026-01-01/");
    assert_eq!(s3.format, S3Format::Parquet(ParquetCompression::Snappy));
    assert_eq!((destination.batch_records_max, destination.batch_bytes_max), (5, 1 << 30));
    assert_eq!(destination.batch_wait_max, Duration::from_secs(10));
    assert_eq!(s3.keys.as_ref().unwrap().secret_access_key.reveal(), "S3_SECRET-value");
    let role = s3.assume_role.as_ref().unwrap();
    assert_eq!((role.external_id.as_deref(), role.session_name.as_str()), (Some("acme-42"), "forebay"));
    let kms = Encryption::Kms { key_id: Some("alias/acme".to_owned()), bucket_key: true };
    assert_eq!(s3.encryption, Some(kms));
    assert!(!format!("{destination:?}").contains("S3_SECRET-value"));
}

#[test]
fn each_slip_about_a_bucket_has_its_line_and_its_remedy() {
    let slips = [
        ("", "`bucket` is missing"),
        ("bucket = \"s3://acme/x\"", "\"s3://acme/x\" can't be the name of a bucket"),
        ("bucket = \"acme\"\nprefix = \"{day}/\"", "there is no {day}"),
        ("bucket = \"acme\"\nprefix = \"/x\"", "it begins with a slash, which makes a folder without a name"),
        ("bucket = \"acme\"\npartitions = \"{date\"", "a brace stands alone"),
        ("bucket = \"acme\"\nformat = \"csv\"", "\"csv\" is not known here"),
        ("bucket = \"acme\"\ncompression = \"snappy\"", "\"snappy\" is not known here"),
        ("bucket = \"acme\"\nformat = \"parquet\"\ncompression = \"gzip\"", "\"gzip\" is not known here"),
        ("bucket = \"acme\"\naccess_key_id = \"env:K\"", "the name of a key is of no use alone"),
        ("bucket = \"acme\"\nsecret_access_key = \"env:K\"", "a key is of no use without its name"),
        ("bucket = \"acme\"\nassume_role = { role_arn = \"me\" }", "this is not the ARN of a role"),
        ("bucket = \"acme\"\nassume_role = { external_id = \"me\" }", "`role_arn` is missing"),
        ("bucket = \"acme\"\nkms_key_id = \"k\"", "this is for encryption = \"kms\""),
        ("bucket = \"acme\"\npath_style = \"yes\"", "true or false belongs here, not a string"),
        ("bucket = \"acme\"\nbatch_bytes_max = \"1MiB\"", "unknown key"),
        ("bucket = \"acme\"\nmax_age = \"2h\"", "2h is too large"),
    ];
    for (keys, message) in slips {
        let (_, findings) = check_text(&s3(keys));
        let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{keys}: {:?}", told(&findings));
        assert!(errors[0].message.contains(message), "{keys}: {:?}", told(&findings));
        assert!(errors[0].line.is_some() && !errors[0].remedy.is_empty(), "{keys}");
    }
}

#[test]
fn an_event_service_needs_no_more_than_its_key() {
    let destination = added(&amplitude(""));
    let SinkConfig::Amplitude(config) = &destination.sink else { panic!("amplitude") };
    assert_eq!((config.api_key.reveal().as_str(), config.event_type.as_str()), ("KEY-value", "get_treatment"));
    assert_eq!(config.url().uri(), "https://api2.amplitude.com/batch");
    assert_eq!((destination.batch_records_max, config.min_id_length), (2_000, 1));
    let by_hand = Destination::new("x", vec!["a".into()], SinkConfig::Amplitude(AmplitudeConfig::new("KEY-value")));
    assert_eq!(format!("{destination:?}"), format!("{by_hand:?}"));
    let destination = added(&segment(""));
    let SinkConfig::Segment(config) = &destination.sink else { panic!("segment") };
    assert_eq!((config.write_key.reveal().as_str(), config.event.as_str()), ("KEY-value", "get_treatment"));
    assert_eq!(config.url().uri(), "https://api.segment.io/v1/batch");
    let by_hand = Destination::new("x", vec!["a".into()], SinkConfig::Segment(SegmentConfig::new("KEY-value")));
    assert_eq!(format!("{destination:?}"), format!("{by_hand:?}"));
}

#[test]
fn an_event_service_goes_where_and_how_it_is_told() {
    let url = |text: &str| match added(text).sink {
        SinkConfig::Amplitude(config) => config.url().uri().to_string(),
        SinkConfig::Segment(config) => config.url().uri().to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(url(&amplitude("region = \"eu\"")), "https://api.eu.amplitude.com/batch");
    assert_eq!(url(&amplitude("api = \"http-v2\"")), "https://api2.amplitude.com/2/httpapi");
    assert_eq!(url(&amplitude("api = \"http-v2\"\nregion = \"eu\"")), "https://api.eu.amplitude.com/2/httpapi");
    assert_eq!(url(&amplitude("endpoint = \"http://localhost:1/x\"")), "http://localhost:1/x");
    let both = "region = \"eu\"\nendpoint = \"http://localhost:1/x\"";
    assert_eq!(url(&amplitude(both)), "http://localhost:1/x", "it overrides the region's");
    assert_eq!(url(&segment(both)), "http://localhost:1/x");
    assert_eq!(url(&segment("region = \"eu\"")), "https://events.eu1.segmentapis.com/v1/batch");
    assert_eq!(url(&segment("endpoint = \"http://localhost:1/x\"")), "http://localhost:1/x");
    assert_eq!(added(&amplitude("api = \"http-v2\"")).batch_records_max, 1_000);
    let told = added(&amplitude("identity = \"device_id\"\nevent_type = \"Seen\"\nmin_id_length = 5"));
    let SinkConfig::Amplitude(told) = told.sink else { panic!("amplitude") };
    assert_eq!((told.identity, told.event_type.as_str(), told.min_id_length), (AmplitudeIdentity::DeviceId, "Seen", 5));
}

#[test]
fn slips_about_event_services_are_told() {
    assert_only(&amplitude("api = \"http-v2\"\nbatch_records_max = 2000"), "2000 is too large");
    assert_only(&amplitude("event_type = \" \""), "E destinations[x].event_type: this can't be the name of an event");
    assert_only(&segment("identity = \"device_id\""), "\"device_id\" is not known here");
    assert_only(&segment("event_type = \"Seen\""), "E destinations[x].event_type: unknown key");
    assert_only(&with_destination("type = \"amplitude\""), "E destinations[x]: `api_key` is missing");
    let spaced = with_destination("type = \"segment\"\nwrite_key = \" canary\"");
    assert_only(&spaced, "E destinations[x].write_key: the key has spaces around it");
    let literal = with_destination("type = \"segment\"\nwrite_key = \"canary\"");
    assert_only(&literal, "W destinations[x].write_key: this key stands here for everyone");
    let (config, findings) = check_text(&literal);
    assert!(!format!("{config:?} {findings:?}").contains("canary"));
}
