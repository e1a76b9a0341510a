//! As whom a bucket is written to where the configuration names no keys: what the SDK finds around the process, and what it
//! does when that runs out. The variables are those of the sidecar's process, never of this one.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::bucket::{objects, side_by_side};
use super::load::{Fate, Post, post};
use super::proof::Arrived;
use super::sidecar::Home;
use super::store::{Act, KEYS, Seen, Store, error, serve};
use super::wire::Client;

/// What was asked of whoever keeps credentials: method, path and body.
type Asked = Arc<Mutex<Vec<String>>>;

/// Whoever keeps credentials; `answer` gives the body for a request by its path.
async fn keeper(answer: impl Fn(&str) -> Response<Full<Bytes>> + Send + Sync + 'static) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, asked, answer) = (listener.local_addr().unwrap(), Asked::default(), Arc::new(answer));
    let noted = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let path = head.uri.path().to_owned();
                    noted.lock().unwrap().push(format!("{} {path} {}", head.method, String::from_utf8_lossy(&body)));
                    Ok::<_, Infallible>(answer(&path))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (addr, asked)
}

/// Credentials as a container or a machine is told them.
fn in_json(token: &str, expiration: &str) -> Response<Full<Bytes>> {
    let (key, secret) = KEYS;
    Response::new(Full::from(format!(
        "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"LastUpdated\":\"2026-01-01T00:00:00Z\",\"AccessKeyId\":\"{key}\",\
         \"SecretAccessKey\":\"{secret}\",\"Token\":\"{token}\",\"Expiration\":\"{expiration}\"}}"
    )))
}

const FAR: &str = "2099-01-01T00:00:00Z";

/// A moment so far from now.
fn after(wait: Duration) -> String {
    let then = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + wait;
    DateTime::from_secs(i64::try_from(then.as_secs()).unwrap()).fmt(DateTimeFormat::DateTime).unwrap()
}

/// A sidecar that writes to the bucket, names no keys, and finds nothing around it but what is added.
fn home(name: &str, store: &Store) -> Home {
    let settings = format!(
        "type = \"s3\"\nbucket = \"impressions\"\nendpoint = \"http://{}\"\npath_style = true\nconcurrency = 1\n\
         max_records = 150\nmax_age = \"1s\"",
        store.addr
    );
    let nothing = "/nonexistent/of-the-tests";
    Home::new(name)
        .destination("acme-s3", &settings)
        .env("AWS_CONFIG_FILE", nothing)
        .env("AWS_SHARED_CREDENTIALS_FILE", nothing)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .without_env(&[
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_PROFILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        ])
}

/// Ten records more.
fn ten_more(client: &mut Client, name: &str, posts: &mut Vec<Post>) {
    let first = posts.len() * 10;
    let keys: Vec<String> = (first..first + 10).map(|n| format!("{name}-{n}")).collect();
    assert!(matches!(post(client, name, &keys), Ok(200..300)));
    posts.push(Post { keys, fate: Fate::Acknowledged });
}

fn header<'a>(seen: &'a Seen, name: &str) -> Option<&'a str> {
    seen.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

/// The store checks each signature: nothing gets in with other credentials, or with none.
#[test]
fn each_link_of_the_chain_of_credentials_writes_to_a_bucket() {
    let runtime = Runtime::new().unwrap();
    let (key, secret) = KEYS;
    let (container, of_container) = runtime.block_on(keeper(|_| in_json("of-a-container", FAR)));
    let (machine, of_machine) = runtime.block_on(keeper(|path| match path {
        "/latest/api/token" => Response::builder()
            .header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
            .body(Full::from("a-token"))
            .unwrap(),
        _ if path.ends_with("/a-role") => in_json("of-a-machine", FAR),
        _ => Response::new(Full::from("a-role")),
    }));
    let (sts, of_sts) = runtime.block_on(keeper(move |_| {
        Response::new(Full::from(format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}\
             </SecretAccessKey><SessionToken>of-a-pod</SessionToken><Expiration>{FAR}</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )))
    }));
    type Way<'a> = (&'static str, Option<&'static str>, Box<dyn Fn(Home) -> Home + 'a>);
    let ways: [Way<'_>; 5] = [
        ("env", None, Box::new(|home| home.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret))),
        (
            "profile",
            None,
            Box::new(|home| {
                let file = home.path("credentials");
                let text = format!("[acme]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
                fs::write(&file, text).unwrap();
                home.env("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()).env("AWS_PROFILE", "acme")
            }),
        ),
        (
            "web-identity",
            Some("of-a-pod"),
            Box::new(|home| {
                let file = home.path("token");
                fs::write(&file, "a-token-of-the-cluster").unwrap();
                home.env("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap())
                    .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/forebay")
                    .env("AWS_ENDPOINT_URL_STS", &format!("http://{sts}"))
            }),
        ),
        (
            "container",
            Some("of-a-container"),
            Box::new(|home| home.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("http://{container}/creds"))),
        ),
        (
            "machine",
            Some("of-a-machine"),
            Box::new(|home| {
                home.env("AWS_EC2_METADATA_DISABLED", "false")
                    .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &format!("http://{machine}"))
            }),
        ),
    ];
    for (name, token, way) in ways {
        let root = tempfile::tempdir().unwrap();
        let bucket = root.path().join("impressions");
        fs::create_dir(&bucket).unwrap();
        let store = runtime.block_on(serve(root.path(), |_| Act::Pass));
        let home = way(home(name, &store));
        let sidecar = home.start();
        let (mut client, mut posts) = (Client::connect(home.ingest()).unwrap(), Vec::new());
        ten_more(&mut client, name, &mut posts);
        sidecar.drain(&["acme-s3"]);
        let objects = objects(&bucket);
        side_by_side(&objects);
        Arrived::in_files(objects.into_iter().flat_map(|object| object.lines).collect()).holds(&posts, "acme-s3");
        let seen = store.seen.lock().unwrap();
        assert!(seen.iter().all(|seen| header(seen, "authorization").is_some_and(|by| by.contains(key))), "{name}");
        assert!(seen.iter().all(|seen| header(seen, "x-amz-security-token") == token), "{name}");
    }
    let asked = |of: &Asked| of.lock().unwrap().clone();
    let [container, machine, sts] = [asked(&of_container), asked(&of_machine), asked(&of_sts)];
    assert!(container.iter().all(|asked| asked.starts_with("GET /creds")), "{container:?}");
    assert!(machine[0].starts_with("PUT /latest/api/token"), "{machine:?}");
    assert!(sts.iter().all(|asked| asked.contains("WebIdentityToken=a-token-of-the-cluster")), "{sts:?}");
}

/// The store takes the old token no more as soon as there is a newer one. Nothing is refused all the same: what runs out is
/// renewed, and then used at once.
#[test]
fn credentials_that_run_out_are_renewed_in_mid_stream() {
    let runtime = Runtime::new().unwrap();
    let given = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given);
    let (container, _) = runtime.block_on(keeper(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        // Just above the time for which credentials must still hold to be used again.
        in_json(&format!("token-{number}"), &after(Duration::from_secs(13)))
    }));
    let root = tempfile::tempdir().unwrap();
    let bucket = root.path().join("impressions");
    fs::create_dir(&bucket).unwrap();
    let (newest, refused) = (Arc::clone(&given), Arc::new(AtomicUsize::new(0)));
    let refusals = Arc::clone(&refused);
    let act = move |seen: &Seen| {
        if header(seen, "x-amz-security-token") == Some(&*format!("token-{}", newest.load(Ordering::SeqCst))) {
            return Act::Pass;
        }
        refusals.fetch_add(1, Ordering::SeqCst);
        Act::Answer(error(400, "ExpiredToken", &[]))
    };
    let store = runtime.block_on(serve(root.path(), act));
    let home = home("renewed", &store).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("http://{container}/creds"));
    let sidecar = home.start();
    let (mut client, mut posts) = (Client::connect(home.ingest()).unwrap(), Vec::new());
    let tokens = || -> BTreeSet<String> {
        let seen = store.seen.lock().unwrap();
        seen.iter().filter_map(|seen| header(seen, "x-amz-security-token").map(str::to_owned)).collect()
    };
    while tokens().len() < 3 {
        assert!(posts.len() < 100, "{:?}", tokens());
        ten_more(&mut client, "renewed", &mut posts);
        sidecar.drain(&["acme-s3"]);
    }
    let objects = objects(&bucket);
    side_by_side(&objects);
    Arrived::in_files(objects.into_iter().flat_map(|object| object.lines).collect()).holds(&posts, "acme-s3");
    assert_eq!(refused.load(Ordering::SeqCst), 0, "what was renewed was used at once");
}
