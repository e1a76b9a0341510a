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

/// A role is taken on with the external id that its owner asks for, and the store is asked in its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_taken_on_with_its_external_id() {
    let (key, secret) = KEYS;
    let answer = format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>token</SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    );
    let (sts, received) = crate::sinks::receiver::serve(move |_| Response::new(Full::from(answer.clone()))).await;
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("impressions")).unwrap();
    let store = serve(root.path(), |_| Act::Pass).await;
    let mut config = config(store.addr, PLAIN);
    let own = config.keys.as_mut().unwrap();
    own.access_key_id = Secret::new("OWN".to_owned());
    config.assume_role = Some(crate::config::AssumeRole {
        role_arn: "arn:aws:iam::123456789012:role/customer".to_owned(),
        external_id: Some("acme-42".to_owned()),
        session_name: "forebay".to_owned(),
        endpoint: Some(Endpoint::parse(&format!("http://{sts}")).unwrap()),
    });
    let sink = sink(&config);
    assert_eq!(put(&sink, &large(0..10)).await, Outcome::Delivered);
    assert_eq!(put(&sink, &large(10..20)).await, Outcome::Delivered);
    let asked = received.lock().unwrap();
    assert_eq!(asked.len(), 1, "the role lasts for an hour");
    let body = String::from_utf8_lossy(&asked[0].1);
    assert!(body.contains("ExternalId=acme-42") && body.contains("RoleSessionName=forebay"), "{body}");
    let authorization = |seen: &Seen| seen.headers.iter().find(|(name, _)| name == "authorization").unwrap().1.clone();
    let seen = store.seen.lock().unwrap();
    assert!(seen.iter().all(|seen| authorization(seen).contains(key)), "in the role's name");
}

/// Else the machine's own permissions would be the customer's.
#[tokio::test]
async fn a_customers_destination_never_comes_as_the_machine_itself() {
    let role = |external_id: Option<&str>, endpoint| crate::config::AssumeRole {
        role_arn: "arn:aws:iam::123456789012:role/customer".to_owned(),
        external_id: external_id.map(str::to_owned),
        session_name: "forebay".to_owned(),
        endpoint,
    };
    let address = Endpoint::parse("https://sts.example.com").unwrap();
    for assume_role in [None, Some(role(None, None)), Some(role(Some("acme-42"), Some(address)))] {
        let config = S3Config { assume_role, ..S3Config::new("impressions") };
        let clock = Arc::new(SystemClock::new());
        let sink = S3Sink::new("acme-s3", &config, AddressPolicy::Customer, 2, Arc::default(), clock);
        let outcome = put(&sink, &large(0..10)).await;
        assert_eq!(kind(&outcome), "refused", "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_where_a_cloud_keeps_credentials_is_not_asked() {
    let config = config("169.254.169.254:80".parse().unwrap(), PLAIN);
    let outcome = put(&sink(&config), &large(0..10)).await;
    let Outcome::Retry { why: Failure::Connect(why) } = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains("169.254.169.254"), "{why}");
}
