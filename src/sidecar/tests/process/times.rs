//! Impressions that say when they were made, and are wrong: negative, zero, far ahead, each earlier than the one before. A time
//! is handed on, and orders nothing.

use serde_json::Value;

use super::receiver::{Answer, Receiver};
use super::sidecar::{Home, SDK_KEY};
use super::wire::Client;

/// What posts say, in turn.
const TIMES: [i64; 9] =
    [i64::MAX, 253_402_300_800_000, 4_102_444_800_000, 1_795_000_000_002, 1_795_000_000_001, 1, 0, -1, i64::MIN];

const POSTS: usize = 90;

#[test]
fn whatever_times_posts_say_an_ordered_destination_gets_them_as_they_came() {
    let receiver = Receiver::start();
    // Each third request fails, so that some are on their way again while others wait.
    receiver.script(|n| if n % 3 == 1 { Answer::Status(503) } else { Answer::Ok });
    let home = Home::new("times").webhook("hook", &receiver, "ordered = true\nbatch_records_max = 7");
    let sidecar = home.start();
    let mut client = Client::connect(home.ingest()).expect("it listens");
    for n in 0..POSTS {
        let time = TIMES[n % TIMES.len()];
        let body = format!(r#"[{{"f":"flag","i":[{{"k":"user-{n}","t":"on","m":{time},"c":1,"r":"all"}}]}}]"#);
        let headers = [("authorization", format!("Bearer {SDK_KEY}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let answer = client.ask("POST", "/api/testImpressions/bulk", &headers, body.as_bytes());
        assert_eq!(answer.and_then(|answer| answer.status()).expect("it answers"), 200, "{time}");
    }
    receiver.script(|_| Answer::Ok);
    sidecar.drain(&["hook"]);
    let mut came = Vec::new();
    for arrival in receiver.arrivals().iter().filter(|arrival| arrival.taken()) {
        let records: Vec<Value> = serde_json::from_slice(&arrival.body).expect("a batch is an array");
        came.extend(records.iter().map(|record| record["key"].as_str().expect("a key").to_owned()));
    }
    let posted: Vec<_> = (0..POSTS).map(|n| format!("user-{n}")).collect();
    assert_eq!(came, posted, "in the order in which they were taken, each once");
}
