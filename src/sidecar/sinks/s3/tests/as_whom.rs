//! As whom the store is asked, and where: keys, roles, and what a customer's destination must not borrow.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_refused_and_nothing_of_them_is_told() {
    let root = tempfile::tempdir().unwrap();
    let store = serve(root.path(), |_| Act::Pass).await;
    let mut config = config(store.addr, PLAIN);
    config.keys.as_mut().unwrap().secret_access_key = Secret::new("canary".to_owned());
    let outcome = put(&sink(&config), &large(0..10)).await;
    let Outcome::Refused { why } = &outcome else { panic!("{outcome:?}") };
    assert!(why.to_string().contains("SignatureDoesNotMatch"), "{why}");
    assert!(!format!("{outcome:?}").contains("canary"));
}

/// A customer's role.
fn role(external_id: Option<&str>, endpoint: Option<Endpoint>) -> crate::config::AssumeRole {
    crate::config::AssumeRole {
        role_arn: "arn:aws:iam::123456789012:role/customer".to_owned(),
        external_id: external_id.map(str::to_owned),
        session_name: "forebay".to_owned(),
        endpoint,
    }
}

/// What STS answers the `n`th time: the store's keys, with a token that tells the times apart.
fn credentials(n: usize, expiration: &str) -> Response<Full<Bytes>> {
    let (key, secret) = KEYS;
    Response::new(Full::from(format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>token-{n}\
         </SessionToken><Expiration>{expiration}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )))
}

/// A role is taken on with the external id that its owner asks for, and the store is asked in its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_taken_on_with_its_external_id() {
    let (sts, received) = crate::sinks::receiver::serve(|n| credentials(n, "2099-01-01T00:00:00Z")).await;
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("impressions")).unwrap();
    let store = serve(root.path(), |_| Act::Pass).await;
    let mut config = config(store.addr, PLAIN);
    let own = config.keys.as_mut().unwrap();
    own.access_key_id = Secret::new("OWN".to_owned());
    config.assume_role = Some(role(Some("acme-42"), Some(Endpoint::parse(&format!("http://{sts}")).unwrap())));
    let sink = sink(&config);
    assert_eq!(put(&sink, &large(0..10)).await, Outcome::Delivered);
    assert_eq!(put(&sink, &large(10..20)).await, Outcome::Delivered);
    let asked = received.lock().unwrap();
    assert_eq!(asked.len(), 1, "the role lasts for an hour");
    let body = String::from_utf8_lossy(&asked[0].1);
    assert!(body.contains("ExternalId=acme-42") && body.contains("RoleSessionName=forebay"), "{body}");
    let authorization = |seen: &Seen| seen.headers.iter().find(|(name, _)| name == "authorization").unwrap().1.clone();
    let seen = store.seen.lock().unwrap();
    assert!(seen.iter().all(|seen| authorization(seen).contains(KEYS.0)), "in the role's name");
}

/// Credentials of a role end; those that are about to are asked for anew, and the next request comes with these.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_about_to_end_is_taken_on_anew() {
    use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

    let soon = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() + Duration::from_secs(5);
    let soon = DateTime::from_secs(i64::try_from(soon.as_secs()).unwrap()).fmt(DateTimeFormat::DateTime).unwrap();
    let (sts, received) = crate::sinks::receiver::serve(move |n| credentials(n, &soon)).await;
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("impressions")).unwrap();
    let store = serve(root.path(), |_| Act::Pass).await;
    let mut config = config(store.addr, PLAIN);
    config.assume_role = Some(role(Some("acme-42"), Some(Endpoint::parse(&format!("http://{sts}")).unwrap())));
    let sink = sink(&config);
    assert_eq!(put(&sink, &large(0..10)).await, Outcome::Delivered);
    assert_eq!(put(&sink, &large(10..20)).await, Outcome::Delivered);
    assert_eq!(objects(root.path()).len(), 2);
    let asked = received.lock().unwrap();
    assert!(asked.len() > 1, "asked {} times", asked.len());
    assert!(asked.iter().all(|(_, body)| String::from_utf8_lossy(body).contains("ExternalId=acme-42")));
    let token = |seen: &Seen| seen.headers.iter().find(|(name, _)| name == "x-amz-security-token").unwrap().1.clone();
    let seen = store.seen.lock().unwrap();
    let tokens: Vec<String> = seen.iter().filter(|seen| seen.operation() == "put").map(token).collect();
    assert!(tokens.len() == 2 && tokens[0] != tokens[1], "{tokens:?}");
}

/// Else the machine's own permissions would be the customer's.
#[tokio::test]
async fn a_customers_destination_never_comes_as_the_machine_itself() {
    let address = Endpoint::parse("https://sts.example.com").unwrap();
    for assume_role in [None, Some(role(None, None)), Some(role(Some("acme-42"), Some(address)))] {
        let config = S3Config { assume_role, ..S3Config::new("impressions") };
        let clock = Arc::new(SystemClock::new());
        let sink = S3Sink::new("acme-s3", &config, AddressPolicy::Customer, 2, Arc::default(), clock);
        let outcome = put(&sink, &large(0..10)).await;
        let Outcome::Refused { why } = &outcome else { panic!("{outcome:?}") };
        assert!(why.to_string().contains("a customer's"), "not for want of any credentials: {why}");
    }
}

/// A bucket as a host of its own, as Amazon has it: addressed and signed by the SDK, told apart by the store. Names below
/// `localhost` are found on few machines, so the way there is ours; the `Host` is the SDK's.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_addressed_as_a_host_unless_the_path_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("impressions")).unwrap();
    let store = store_server::serve_as(root.path(), Some("localhost"), |_| Act::Pass).await;
    let port = store.addr.port();
    let endpoint = Some(Endpoint::parse(&format!("http://localhost:{port}")).unwrap());
    let config = S3Config { endpoint, path_style: false, ..config(store.addr, PLAIN) };
    let sink = sink(&config);
    let client = sink.client().await.unwrap();
    let there = super::super::client::carried_to(store.addr);
    let client = Client::from_conf(client.config().to_builder().http_client(there).build());
    let (config, clock) = (Arc::new(config), Arc::new(SystemClock::new()));
    let place = Place {
        store: Arc::new(super::super::Store { client, config: Arc::clone(&config), clock }),
        swept: BTreeSet::new(),
    };
    sink.inner.places.lock().await.insert(config.location(), place);
    for job in [large(0..10), many(5_500)] {
        assert_eq!(put(&sink, &job).await, Outcome::Delivered);
        assert_eq!(put(&sink, &job).await, Outcome::Delivered, "it is found there");
    }
    assert_eq!(objects(root.path()).len(), 2);
    for seen in store.seen.lock().unwrap().iter() {
        let host = seen.headers.iter().find(|(name, _)| name == "host").unwrap();
        assert_eq!(host.1, format!("impressions.localhost:{port}"));
        assert!(!seen.path.starts_with("/impressions/"), "{}", seen.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_where_a_cloud_keeps_credentials_is_not_asked() {
    let config = config("169.254.169.254:80".parse().unwrap(), PLAIN);
    let outcome = put(&sink(&config), &large(0..10)).await;
    let Outcome::Retry { why: Failure::Connect(why) } = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains("169.254.169.254 is a cloud's metadata address"), "{why}");
}
