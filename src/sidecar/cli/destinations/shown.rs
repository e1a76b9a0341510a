//! Destinations and environments as tables for people and JSON for programs. Pure.
//!
//! The names of JSON are those of `destinations.proto`, and are kept once given.

use serde_json::{Value, json};

use crate::console::columns::aligned;
use crate::console::units;
use crate::proto::v1::{
    AcceptFloorLossResponse, DeleteDestinationRequest, DeleteDestinationResponse, Destination, Environment, FloorLoss,
    LeftEnvironment, Origin,
};

/// A list of destinations.
pub(super) fn destinations(destinations: &[Destination], json: bool) -> String {
    if json {
        return line(&json!({ "destinations": destinations.iter().map(value).collect::<Vec<_>>() }));
    }
    if destinations.is_empty() {
        return "there are no destinations\n".to_owned();
    }
    let head = ["DESTINATION", "TYPE", "MADE IN", "ENVIRONMENTS", "RECORDS", "STATE"].map(str::to_owned);
    let row = |destination: &Destination| {
        [
            destination.id.clone(),
            destination.r#type.clone(),
            origin(destination.origin()).to_owned(),
            destination.environments.join(","),
            units::count(destination.records_pending),
            state(destination).to_owned(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(destinations.iter().map(row)).collect();
    aligned(&rows, [false, false, false, false, true, false])
}

/// One destination, with its settings where they are known.
pub(super) fn destination(destination: &Destination, json: bool) -> String {
    if json {
        return line(&value(destination));
    }
    let mut table = destinations(std::slice::from_ref(destination), false);
    for LeftEnvironment { environment, records_pending, .. } in &destination.left {
        let records = units::count(*records_pending);
        table += &format!(
            "nothing delivers what it has of environment {environment}, {records} records and what is still to come\n"
        );
    }
    if destination.settings.is_empty() { table } else { format!("{table}\n{}", destination.settings) }
}

/// What was done to a destination.
pub(super) fn done(what: &str, destination: &Destination, json: bool) -> String {
    if json { line(&value(destination)) } else { format!("destination {} is {what}\n", destination.id) }
}

/// How a deletion went.
pub(super) fn deleted(request: &DeleteDestinationRequest, answer: &DeleteDestinationResponse, json: bool) -> String {
    let DeleteDestinationRequest { id, environment, .. } = request;
    let DeleteDestinationResponse { records_pending, deleted } = *answer;
    let of = (!environment.is_empty()).then_some(environment);
    if json {
        return line(&json!({ "id": id, "environment": of, "records_pending": records_pending, "deleted": deleted }));
    }
    let what = of.map_or_else(
        || format!("destination {id}"),
        |environment| format!("what environment {environment} had left in destination {id}"),
    );
    let records = units::count(records_pending);
    match (deleted, records_pending) {
        (true, 0) => format!("{what} is deleted\n"),
        (true, _) => format!("{what} is deleted, and {records} records that it had not got are given up\n"),
        (false, _) => format!("destination {id} goes when it has got the {records} records that it has pending\n"),
    }
}

/// A list of environments.
pub(super) fn environments(environments: &[Environment], json: bool) -> String {
    if json {
        let value = |environment: &Environment| {
            json!({
                "id": environment.id,
                "origin": origin(environment.origin()),
                "name": environment.name,
                "sdk_keys": environment.sdk_keys,
            })
        };
        return line(&json!({ "environments": environments.iter().map(value).collect::<Vec<_>>() }));
    }
    let head = ["ENVIRONMENT", "MADE IN", "NAME", "SDK KEYS"].map(str::to_owned);
    let row = |environment: &Environment| {
        let Environment { id, name, sdk_keys, .. } = environment;
        [id.clone(), origin(environment.origin()).to_owned(), name.clone(), units::count(u64::from(*sdk_keys))]
    };
    let rows: Vec<_> = std::iter::once(head).chain(environments.iter().map(row)).collect();
    aligned(&rows, [false, false, false, true])
}

/// An environment is gone.
pub(super) fn environment_deleted(id: &str, json: bool) -> String {
    if json { line(&json!({ "id": id, "deleted": true })) } else { format!("environment {id} is deleted\n") }
}

/// What damaged floors have lost, and what follows from it, or would.
pub(super) fn floor_losses(answer: &AcceptFloorLossResponse, accepted: bool, json: bool) -> String {
    let AcceptFloorLossResponse { losses, unread_decisions } = answer;
    if json {
        let loss = |loss: &FloorLoss| {
            let FloorLoss { upstream, bytes_used, streams_let_go, streams_let_go_total } = loss;
            json!({
                "upstream": (!upstream.is_empty()).then_some(upstream),
                "bytes_used": bytes_used,
                "streams_let_go": streams_let_go,
                "streams_let_go_total": streams_let_go_total,
            })
        };
        let losses: Vec<_> = losses.iter().map(loss).collect();
        return line(&json!({ "accepted": accepted, "losses": losses, "unread_decisions": unread_decisions }));
    }
    let mut text = String::new();
    for FloorLoss { upstream, bytes_used, streams_let_go, streams_let_go_total } in losses {
        let log = if upstream.is_empty() { "the log".to_owned() } else { format!("the log of upstream {upstream}") };
        text += &format!("{log} ({}): its floor has lost cursors that nobody can name\n", units::bytes(*bytes_used));
        if !streams_let_go.is_empty() {
            let streams = streams_let_go.join(", ");
            let going = if accepted { "goes" } else { "would go" };
            let more = match streams_let_go_total.saturating_sub(streams_let_go.len() as u64) {
                0 => String::new(),
                more => format!(" and {} more", units::count(more)),
            };
            text += &format!("  no destination takes from these, and what is kept of them {going}: {streams}{more}\n");
        }
    }
    if *unread_decisions > 0 {
        let (unread, goes) = (units::count(*unread_decisions), if accepted { "goes" } else { "would go" });
        text += &format!(
            "{unread} records of what operators decided at run time could not be read at the start: a destination that one of them made \
             is missing here, nothing names it, and what it had pending {goes}\n"
        );
        if !accepted {
            text +=
                "  make it again under its id (forebay destinations create); if it may go: --yes --unread-decisions\n";
        }
    }
    text += match accepted {
        true => "accepted: what no destination needs is deleted again, by and by\n",
        false => {
            "Destinations that run have begun again with the oldest record that was kept, and what they had is delivered again. Lost \
             for good are: what a destination had pending that is in the configuration no more, or of an environment that it takes from no \
             more (put it back before, if you want to keep that); replays that were under way; the \
             balances of before. If you have a copy of the floor file from just before the damage, stop the sidecar and put it back \
             instead. With --yes what no destination needs is deleted again.\n"
        }
    };
    text
}

fn value(destination: &Destination) -> Value {
    json!({
        "id": destination.id,
        "origin": origin(destination.origin()),
        "type": destination.r#type,
        "environments": destination.environments,
        "paused": destination.paused,
        "draining": destination.draining,
        "records_pending": destination.records_pending,
        "bytes_pending": destination.bytes_pending,
        "left": destination.left.iter().map(left).collect::<Vec<_>>(),
        "settings": (!destination.settings.is_empty()).then_some(&destination.settings),
    })
}

fn left(left: &LeftEnvironment) -> Value {
    let LeftEnvironment { environment, records_pending, dead_letters } = left;
    json!({ "environment": environment, "records_pending": records_pending, "dead_letters": dead_letters })
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Unspecified => "unknown",
        Origin::File => "file",
        Origin::Api => "api",
        Origin::LeftBehind => "left behind",
    }
}

fn state(destination: &Destination) -> &'static str {
    match destination {
        Destination { draining: true, .. } => "draining",
        Destination { paused: true, .. } => "paused",
        Destination { r#type, .. } if r#type.is_empty() => "not delivered to",
        _ => "on",
    }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> Destination {
        Destination {
            id: "hook".to_owned(),
            origin: Origin::Api.into(),
            r#type: "webhook".to_owned(),
            environments: vec!["prod".to_owned(), "staging".to_owned()],
            records_pending: 12_345,
            settings: "url = \"https://example.com (set)\"\n".to_owned(),
            ..Destination::default()
        }
    }

    #[test]
    fn a_table_says_where_each_was_made_and_what_it_does() {
        let left = Destination { id: "old".to_owned(), origin: Origin::LeftBehind.into(), ..Destination::default() };
        let paused = Destination { paused: true, ..hook() };
        let text = destinations(&[hook(), paused, left], false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("webhook") && lines[1].contains("api") && lines[1].ends_with("on"), "{text}");
        assert!(lines[2].ends_with("paused") && lines[3].ends_with("not delivered to"), "{text}");
        assert!(destination(&hook(), false).contains("example.com (set)"));
        let of_qa = LeftEnvironment { environment: "qa".to_owned(), records_pending: 7, dead_letters: 0 };
        let told = destination(&Destination { left: vec![of_qa], ..hook() }, false);
        assert!(told.contains("nothing delivers what it has of environment qa, 7 records"), "{told}");
    }

    #[test]
    fn a_floors_loss_is_told_before_it_is_taken() {
        let loss = FloorLoss {
            bytes_used: 5 << 20,
            streams_let_go: vec!["old-prod".to_owned()],
            streams_let_go_total: 1,
            ..FloorLoss::default()
        };
        let split = FloorLoss {
            upstream: "split".to_owned(),
            streams_let_go: vec!["posts/qa/0".to_owned()],
            streams_let_go_total: 1_235,
            ..FloorLoss::default()
        };
        let mut answer = AcceptFloorLossResponse { losses: vec![loss, split], unread_decisions: 0 };
        let told = floor_losses(&answer, false, false);
        assert!(told.starts_with("the log (5.0 MiB): its floor has lost cursors"), "{told}");
        assert!(told.contains("kept of them would go: old-prod\nthe log of upstream split ("), "{told}");
        assert!(told.contains("delivered again") && told.contains("With --yes"), "{told}");
        assert!(
            told.contains("would go: posts/qa/0 and 1,234 more\n") && told.contains("it takes from no more"),
            "{told}"
        );
        assert!(!told.contains("--unread-decisions"), "{told}");
        let done = floor_losses(&answer, true, false);
        assert!(
            done.contains("kept of them goes: old-prod\n") && done.ends_with("deleted again, by and by\n"),
            "{done}"
        );
        answer.unread_decisions = 2;
        let told = floor_losses(&answer, false, false);
        assert!(
            told.contains("\n2 records of what operators decided") && told.contains("--yes --unread-decisions"),
            "{told}"
        );
        let read: Value = serde_json::from_str(&floor_losses(&answer, true, true)).unwrap();
        assert_eq!((&read["unread_decisions"], &read["losses"][1]["streams_let_go_total"]), (&json!(2), &json!(1_235)));
        let losses = &read["losses"];
        assert_eq!((&read["accepted"], &losses[1]["upstream"]), (&json!(true), &json!("split")));
        assert_eq!((&losses[0]["upstream"], &losses[0]["streams_let_go"]), (&Value::Null, &json!(["old-prod"])));
    }

    #[test]
    fn json_has_the_names_of_the_api() {
        let read: Value = serde_json::from_str(&destination(&hook(), true)).unwrap();
        assert_eq!((&read["id"], &read["records_pending"]), (&json!("hook"), &json!(12_345)));
        assert_eq!((&read["origin"], &read["paused"]), (&json!("api"), &json!(false)));
        let answer = DeleteDestinationResponse { records_pending: 7, deleted: false };
        let whole = DeleteDestinationRequest { id: "hook".to_owned(), ..DeleteDestinationRequest::default() };
        let read: Value = serde_json::from_str(&deleted(&whole, &answer, true)).unwrap();
        assert_eq!(read, json!({ "id": "hook", "environment": null, "records_pending": 7, "deleted": false }));
        assert!(deleted(&whole, &answer, false).contains("7 records"));
        let of = DeleteDestinationRequest { environment: "qa".to_owned(), ..whole };
        let told = deleted(&of, &DeleteDestinationResponse { deleted: true, ..answer }, false);
        assert!(told.contains("environment qa had left in destination hook is deleted, and 7 records"), "{told}");
    }
}
