//! What SDKs post reaches Split: all of it, once, in order for each SDK key, byte for byte, through outages and kills.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::sidecar::{Home, SDK_KEY, wait_for};
use super::split::Split;
use super::wire::Client;

/// How often the sidecar is killed.
const KILLS: usize = 4;

/// The key that the captured browsers show, in their bodies.
const BROWSER_KEY: &str = "browser-sdk-key-0001";

fn home(name: &str, split: &Split, more: &str) -> Home {
    Home::new(name)
        .destination("split", &format!("type = \"upstream\"\nurl = \"http://{}/api\"\n{more}", split.address))
}

/// A post as it is sent: path, headers, body.
type Sent = (String, Vec<(String, String)>, Vec<u8>);

/// What the captured SDKs sent, with the keys that the sidecar knows.
fn captured() -> Vec<Sent> {
    let captures = ["java-debug", "python-debug", "node-debug", "browser-debug-navigate", "browser-optimized-navigate"];
    let mut posts = Vec::new();
    for name in captures {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../storage-tests/captures/{name}.json"));
        let capture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for request in capture["requests"].as_array().unwrap() {
            let header = |header: &Value| {
                let (name, value) = (header[0].as_str().unwrap().to_owned(), header[1].as_str().unwrap().to_owned());
                match name.to_lowercase().as_str() {
                    "host" | "content-length" | "connection" => None,
                    "authorization" => Some((name, format!("Bearer {SDK_KEY}"))),
                    "splitsdkclientkey" => Some((name, SDK_KEY[SDK_KEY.len() - 4..].to_owned())),
                    _ => Some((name, value)),
                }
            };
            let headers = request["headers"].as_array().unwrap().iter().filter_map(header).collect();
            let body = request["body_text"].as_str().unwrap().as_bytes().to_vec();
            posts.push((request["path"].as_str().unwrap().to_owned(), headers, body));
        }
    }
    posts
}

fn post(client: &mut Client, path: &str, headers: &[(String, String)], body: &[u8]) -> u16 {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    client.ask("POST", path, &headers, body).and_then(|answer| answer.status()).expect("it is answered")
}

/// Posts bulks that can be told apart, until told to stop or the sidecar dies; returns what was acknowledged, and counts it
/// meanwhile.
fn numbered(address: SocketAddr, from: usize, count: usize, taken: &AtomicUsize) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    let Ok(mut client) = Client::connect(address) else { return acknowledged };
    for n in from..from + count {
        let body = bulk(n);
        let headers = [("authorization", format!("Bearer {SDK_KEY}"))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match client.ask("POST", "/api/testImpressions/bulk", &headers, body.as_bytes()) {
            Ok(answer) if answer.status().is_ok_and(|status| status == 200) => {
                acknowledged.push(n);
                taken.fetch_add(1, Ordering::SeqCst);
            }
            _ => return acknowledged,
        }
    }
    acknowledged
}

fn bulk(n: usize) -> String {
    format!(r#"[{{"f":"checkout","i":[{{"k":"user-{n}","t":"on","m":{n},"c":1,"r":"all"}}]}}]"#)
}

/// The number of a bulk of [`numbered`].
fn number(body: &[u8]) -> usize {
    let body: Value = serde_json::from_slice(body).expect("a bulk");
    body[0]["i"][0]["m"].as_u64().expect("its number") as usize
}

/// Every byte of every file below a directory.
fn holds(dir: &Path, part: &str) -> Option<String> {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = holds(&path, part) {
                return Some(found);
            }
        } else {
            let mut bytes = Vec::new();
            std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            if bytes.windows(part.len()).any(|window| window == part.as_bytes()) {
                return Some(path.display().to_string());
            }
        }
    }
    None
}

#[test]
fn all_that_real_sdks_post_reaches_split_once_in_order_and_byte_for_byte() {
    let split = Split::start();
    let home = home("relayed", &split, "");
    let sidecar = home.start();
    let mut client = Client::connect(home.ingest()).unwrap();
    let sent = captured();
    for (path, headers, body) in &sent {
        assert_eq!(post(&mut client, path, headers, body), 200, "{path}");
    }
    assert!(wait_for(|| split.posts().len() >= sent.len()));
    sidecar.drain(&["split"]);
    let taken = split.taken();
    assert_eq!(split.posts().len(), sent.len(), "each of them once");
    for key in [SDK_KEY, BROWSER_KEY] {
        let of_key = sent.iter().filter(|(path, ..)| path.ends_with("beacon") == (key == BROWSER_KEY));
        let came = &taken[key];
        assert_eq!(came.len(), of_key.clone().count());
        for (came, (path, headers, body)) in came.iter().zip(of_key) {
            assert_eq!(&came.path, path, "in order");
            assert!(came.body == *body, "{path}: byte for byte");
            for (name, value) in headers {
                let name = name.to_lowercase();
                if name.starts_with("splitsdk") || ["authorization", "content-type", "user-agent"].contains(&&*name) {
                    assert_eq!(came.header(&name), Some(value.as_str()), "{path} {name}");
                }
            }
        }
    }
    assert_eq!(
        sidecar.lags().iter().filter(|lag| lag.destination == "split").map(|lag| lag.delivered).sum::<u64>(),
        sent.len() as u64
    );
    sidecar.terminate();
    assert_eq!(sidecar.wait(), Some(0));
    let data = home.path("data");
    assert!(data.join("upstream/split/log").is_dir());
    for key in [SDK_KEY, BROWSER_KEY] {
        assert_eq!(holds(&data, key), None, "a key lies on the disk");
        assert_eq!(holds(&data, &key[key.len() - 12..]), None, "a part of a key lies on the disk");
    }
}

#[test]
fn what_was_acknowledged_is_relayed_in_order_after_an_outage_and_kills() {
    let split = Split::start();
    // Down for a while: every way of being down.
    split.answers(|n| [503, 500, 0, 429][n % 4]);
    let home = home("relayed-kills", &split, "timeout = \"10s\"");
    let mut acknowledged = Vec::new();
    for life in 0..KILLS {
        let sidecar = home.start();
        let address = home.ingest();
        let taken = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&taken);
        let posting = thread::spawn(move || numbered(address, life * 100_000, 100_000, &count));
        assert!(wait_for(|| taken.load(Ordering::SeqCst) > 10));
        thread::sleep(Duration::from_millis(300));
        if life == 2 {
            split.answers(|n| if n % 5 == 0 { 503 } else { 200 });
            thread::sleep(Duration::from_millis(600));
        }
        sidecar.kill();
        acknowledged.extend(posting.join().unwrap());
    }
    split.answers(|_| 200);
    let sidecar = home.start();
    sidecar.drain(&["split"]);
    let posts = split.posts();
    // Those that were taken. A kill takes back what was settled since the last tick of the floor: then they come again
    // from there on, in order.
    let mut taken: Vec<usize> = posts.iter().filter(|post| post.status == 200).map(|post| number(&post.body)).collect();
    let steps_back = taken.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    assert!(
        steps_back <= KILLS,
        "{steps_back} steps back: one for each kill at most, and between them none is out of order"
    );
    let all = taken.len();
    let mut seen = BTreeSet::new();
    taken.retain(|n| seen.insert(*n));
    assert!(taken.is_sorted(), "each came first when it was its turn");
    let repeats = all - taken.len();
    for post in &posts {
        assert_eq!(post.body, bulk(number(&post.body)).as_bytes());
    }
    let missing: Vec<_> = acknowledged.iter().filter(|n| taken.binary_search(n).is_err()).collect();
    assert!(missing.is_empty(), "{} of {} acknowledged posts were not relayed", missing.len(), acknowledged.len());
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    eprintln!("{} posts acknowledged, {} taken, {repeats} repeats", acknowledged.len(), taken.len());
}

/// Before, such an upstream was idle, without a reason, and an alert on those that refuse never fired.
#[test]
fn a_key_that_split_refuses_is_seen_where_operators_look_and_goes_on_when_it_is_mended() {
    let split = Split::start();
    split.answers(|_| 401);
    let home = home("relayed-refused", &split, "");
    let sidecar = home.start();
    let headers = [("authorization".to_owned(), format!("Bearer {SDK_KEY}"))];
    let mut client = Client::connect(home.ingest()).unwrap();
    assert_eq!(post(&mut client, "/api/events/bulk", &headers, b"[]"), 200);
    let metrics = || String::from_utf8(Client::connect(home.admin()).unwrap().get("/metrics").unwrap().body).unwrap();
    assert!(wait_for(|| metrics().contains("forebay_delivery_state{destination=\"split\",state=\"refused\"} 1\n")));
    let verdicts = "forebay_delivery_verdicts_total{destination=\"split\",outcome=\"refused\"} ";
    assert!(metrics().lines().any(|line| line.strip_prefix(verdicts).is_some_and(|count| count != "0")));
    let lags = sidecar.asked(&["lag", "-d", "split"]);
    let row = lags["lags"].as_array().unwrap().iter().find(|row| row["records_behind"] == 1).expect("its key's");
    let why = row["last_error"]["message"].as_str().unwrap();
    assert_eq!((&row["state"], &row["forecast"]["outcome"]), (&"refused".into(), &"never_at_this_rate".into()));
    assert!(why.starts_with("answered 401: sdk key ") && why.contains(" of environment "), "{why}");
    assert!(row["next_attempt_unix_ms"].as_u64().unwrap() > lags["read_at_unix_ms"].as_u64().unwrap() - 10_000);
    split.answers(|_| 200);
    assert!(sidecar.call(&["destinations", "probe", "split"]).status.success());
    sidecar.drain(&["split"]);
    assert!(wait_for(|| !metrics().contains("state=\"refused\"")));
}

#[test]
fn a_share_that_is_raised_in_the_file_takes_posts_again_without_a_restart() {
    let split = Split::start();
    split.answers(|_| 503);
    let home = home("relayed-raised", &split, "max_bytes = \"8MiB\"");
    let sidecar = home.start();
    let headers = [("authorization".to_owned(), format!("Bearer {SDK_KEY}"))];
    let mut client = Client::connect(home.ingest()).unwrap();
    // What a JSON parser would make of it is Split's affair.
    let body = vec![b' '; 512 << 10];
    let mut events = || post(&mut client, "/api/events/bulk", &headers, &body);
    let kept = (0..100).take_while(|_| events() == 200).count();
    assert!((1..100).contains(&kept), "{kept} posts of half a MiB in 8");
    let path = home.path("forebay.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"8MiB\"", "\"64MiB\"")).unwrap();
    sidecar.hang_up();
    sidecar.says("the configuration was read again", 1);
    assert!(wait_for(|| events() == 200), "there is room now");
    let more = (0..10).filter(|_| events() == 200).count();
    assert_eq!(more, 10, "far more than fitted into what there was");
    split.answers(|_| 200);
    sidecar.drain(&["split"]);
    let relayed = split.posts().iter().filter(|post| post.status == 200).count();
    assert_eq!(relayed, kept + 1 + more, "each of them once");
}

#[test]
fn a_full_share_costs_no_impression_and_is_counted() {
    let split = Split::start();
    split.answers(|_| 503);
    let home = home("relayed-full", &split, "max_bytes = \"8MiB\"").file("archive", "");
    let sidecar = home.start();
    let body = {
        let one = |n| format!(r#"{{"k":"user-{n}","t":"on","m":{n},"c":1,"r":"default rule"}}"#);
        format!(r#"[{{"f":"checkout","i":[{}]}}]"#, (0..10_000).map(one).collect::<Vec<_>>().join(","))
    };
    let headers = [("authorization".to_owned(), format!("Bearer {SDK_KEY}"))];
    let mut client = Client::connect(home.ingest()).unwrap();
    for _ in 0..25 {
        assert_eq!(post(&mut client, "/api/testImpressions/bulk", &headers, body.as_bytes()), 200);
    }
    let metric = |name: &str| {
        let page = Client::connect(home.admin()).unwrap().get("/metrics").unwrap();
        let page = String::from_utf8(page.body).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {page}"));
        line.trim().parse::<f64>().unwrap()
    };
    let posts = |way: &str| metric(&format!("forebay_upstream_posts_total{{destination=\"split\",as=\"{way}\"}}"));
    assert!(wait_for(|| posts("kept") + posts("missed") == 25.0), "each is counted");
    assert!(posts("missed") > 0.0 && posts("kept") > 0.0, "{} missed", posts("missed"));
    sidecar.says("posts could not be kept for the upstream", 1);
    // Impressions go on everywhere else.
    sidecar.drain(&["archive"]);
    assert_eq!(home.lines("archive").len(), 250_000);
    let events = post(&mut client, "/api/events/bulk", &headers, "[]".as_bytes());
    assert!([200, 503].contains(&events), "kept if it still fits, or refused: {events}");
    // What was kept is relayed, and there is room again.
    split.answers(|_| 200);
    sidecar.drain(&["split"]);
    let relayed = split.posts().iter().filter(|post| post.status == 200 && post.path.ends_with("/bulk")).count();
    assert!(relayed as f64 >= posts("kept"), "{relayed}");
    assert!(wait_for(|| post(&mut client, "/api/events/bulk", &headers, b"[]") == 200));
}
