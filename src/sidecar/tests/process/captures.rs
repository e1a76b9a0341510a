//! What real SDKs sent, byte for byte over HTTP, comes out at a webhook as what their applications evaluated.

use serde_json::Value;

use super::receiver::Receiver;
use super::sidecar::{Home, SDK_KEY};
use super::wire::Client;
use crate::evaluated::{CAPTURES, Multiset, arrived, expected, multiset};

/// Headers that are the connection's, not the SDK's.
const OF_THE_CONNECTION: [&str; 3] = ["host", "connection", "content-length"];

/// Sends every request of a capture that its SDK was told is stored, as it stands.
fn replay(client: &mut Client, requests: &str) {
    let capture: Value = serde_json::from_str(requests).unwrap();
    let taken = |request: &&Value| request["answered"] == "200";
    for request in capture["requests"].as_array().unwrap().iter().filter(taken) {
        let text = |value: &'_ Value| value.as_str().unwrap().to_owned();
        let headers: Vec<_> =
            request["headers"].as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let headers: Vec<_> = headers
            .into_iter()
            .filter(|(name, _)| !OF_THE_CONNECTION.contains(&name.to_ascii_lowercase().as_str()))
            .collect();
        let (method, path) = (text(&request["method"]), text(&request["path"]));
        let answer = client.ask(&method, &path, &headers, text(&request["body_text"]).as_bytes()).unwrap();
        let impressions =
            path.ends_with("/bulk") && !path.contains("events") || path.ends_with("testImpressions/beacon");
        assert_eq!(answer.status().unwrap(), if impressions { 200 } else { 202 }, "{path}");
    }
}

/// Names what differs, not the hundreds that don't.
fn same(found: &Multiset, wanted: &Multiset, name: &str) {
    let not_in = |a: &Multiset, b: &Multiset| {
        let more = a.iter().filter(|(one, count)| b.get(*one) != Some(*count));
        more.map(|(one, count)| format!("{count} x {one}")).collect::<Vec<_>>()
    };
    assert!(found == wanted, "{name}: found {:#?} and not {:#?}", not_in(found, wanted), not_in(wanted, found));
}

#[test]
fn what_real_sdks_sent_arrives_as_it_was_evaluated() {
    for (name, requests, evaluated) in CAPTURES {
        assert!(requests.contains(SDK_KEY) || requests.contains("browser-sdk-key-0001"));
        let receiver = Receiver::start();
        let home = Home::new("captures").webhook("hook", &receiver, "batch_records_max = 70").file("archive", "");
        let sidecar = home.start();
        replay(&mut Client::connect(home.ingest()).unwrap(), requests);
        sidecar.drain(&["hook", "archive"]);
        sidecar.terminate();
        assert_eq!(sidecar.wait(), Some(0));
        for key in [SDK_KEY, "browser-sdk-key-0001"] {
            assert!(home.data_with(key.as_bytes()).is_empty(), "an sdk key is a secret");
        }
        assert!(!home.data_with(b"\0").is_empty(), "what is looked for is found");

        let (plain, with_previous) = expected(name, evaluated);
        let mut objects = Vec::new();
        for arrival in receiver.arrivals() {
            objects.extend(serde_json::from_slice::<Vec<Value>>(&arrival.body).unwrap());
        }
        same(&multiset(objects.iter().map(arrived)), &plain, name);
        let lines = home.lines("archive");
        let lines = lines.iter().map(|line| {
            let mut object = arrived(line);
            object["previous_time"] = line["previousTime"].clone();
            object
        });
        same(&multiset(lines), &with_previous, name);
    }
}
