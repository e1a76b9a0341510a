//! Destinations that are made, changed, paused and taken out while impressions come in: through the API, and by a
//! change of the configuration file. Nothing is lost by any of it, and it is kept across a kill.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::load::Load;
use super::proof::{Arrived, balance_closes};
use super::receiver::{Answer, Arrival, Receiver};
use super::sidecar::{Home, Sidecar, wait_for};
use super::wire::Client;

/// A webhook as a file for `forebay destinations create`.
fn settings(home: &Home, id: &str, url: &str, more: &str) -> PathBuf {
    let path = home.path(&format!("{id}-made.toml"));
    let text = format!(
        "[[destinations]]\nid = \"{id}\"\nenvironments = [\"acme-prod\"]\ntype = \"webhook\"\nurl = \"{url}\"\n\
         headers = {{ x-sidecar = \"made\", x-life = \"0\" }}\n{more}\n"
    );
    fs::write(&path, text).expect("the directory is ours");
    path
}

fn metric(home: &Home, name: &str) -> String {
    let answer = Client::connect(home.admin()).and_then(|mut client| client.get("/metrics")).expect("it answers");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).rsplit(' ').next().expect("a value").to_owned()
}

fn listed(sidecar: &Sidecar<'_>, id: &str) -> Value {
    let list = sidecar.asked(&["destinations", "list"]);
    let all = list["destinations"].as_array().expect("a list").clone();
    all.into_iter().find(|one| one["id"] == id).unwrap_or_else(|| panic!("{id} is not in {list}"))
}

#[test]
fn a_destination_made_at_run_time_gets_everything_across_a_kill_and_a_pause() {
    let receiver = Receiver::start();
    let home = Home::new("made").grpc("allow_addresses = [\"127.0.0.0/8\"]");
    let sidecar = home.start();
    let load = Load::start("made", 6, 2, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 20));
    let made = settings(&home, "made", &receiver.url(), "start = \"earliest\"\nbatch_records_max = 100");
    let made = made.to_str().expect("UTF-8");
    assert_eq!(sidecar.asked(&["destinations", "create", made])["origin"], "api");
    assert!(wait_for(|| receiver.count() > 3));
    let again = sidecar.call(&["destinations", "create", made]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("already"), "{again:?}");
    sidecar.kill();

    let sidecar = home.start();
    assert_eq!(listed(&sidecar, "made")["origin"], "api");
    let shown = sidecar.asked(&["destinations", "show", "made"])["settings"].to_string();
    assert!(shown.contains("(set)") && !shown.contains("x-life = \\\"0\\\""), "{shown}");
    let before = load.acknowledged();
    assert!(wait_for(|| load.acknowledged() > before + 20));
    assert_eq!(sidecar.asked(&["destinations", "pause", "made"])["paused"], true);
    let still = wait_for(|| sidecar.lags().iter().all(|lag| lag.in_flight == 0));
    assert!(still, "what was in flight has landed");
    let (count, before) = (receiver.count(), load.acknowledged());
    assert!(wait_for(|| load.acknowledged() > before + 20), "a pause stops nobody from posting");
    sidecar.kill();

    let sidecar = home.start();
    let before = load.acknowledged();
    assert!(wait_for(|| load.acknowledged() > before + 20));
    assert_eq!(receiver.count(), count, "it is paused across a restart");
    let posts = load.stop();
    assert_eq!(listed(&sidecar, "made")["paused"], true);
    sidecar.asked(&["destinations", "resume", "made"]);
    let lags = sidecar.drain(&["made"]);
    let arrived = Arrived::at_webhook(&receiver.arrivals());
    arrived.holds(&posts, "made");
    balance_closes(&lags, &["made"], arrived.len());
    let answer = sidecar.asked(&["destinations", "delete", "made"]);
    assert_eq!((&answer["deleted"], &answer["records_pending"]), (&true.into(), &0.into()));
    assert!(wait_for(|| sidecar.lags().is_empty()), "what is shown may be what was read a moment before");
}

#[test]
fn a_wrong_file_changes_nothing_and_one_that_is_taken_out_is_kept_until_it_is_back() {
    let (receiver, other) = (Receiver::start(), Receiver::start());
    let home = Home::new("reloaded").webhook("hook", &receiver, "batch_records_max = 100").webhook("other", &other, "");
    let sidecar = home.start();
    let load = Load::start("reloaded", 7, 2, home.ingest());
    assert!(wait_for(|| receiver.count() > 3 && other.count() > 3));
    let path = home.path("forebay.toml");
    let good = fs::read_to_string(&path).expect("it is there");

    fs::write(&path, good.replace("type = \"webhook\"", "type = \"webhok\"")).expect("ours");
    sidecar.hang_up();
    sidecar.says("the configuration was not taken", 1);
    assert!(sidecar.said().contains("there is no type"), "it says why");
    assert_eq!(metric(&home, "forebay_config_reload_failed"), "1");
    let (one, two) = (receiver.count(), other.count());
    assert!(wait_for(|| receiver.count() > one && other.count() > two), "all goes on");

    // Without the signal: a change of the file is enough.
    let (kept, _) = good.split_once("[[destinations]]\nid = \"other\"").expect("it is the last");
    fs::write(&path, kept).expect("ours");
    sidecar.says("taken out of the configuration", 1);
    assert!(wait_for(|| metric(&home, "forebay_config_reload_failed") == "0"), "it says so before it is through");
    let (count, before) = (other.count(), load.acknowledged());
    assert!(wait_for(|| load.acknowledged() > before + 20));
    assert_eq!(other.count(), count, "nothing is delivered to it");
    assert_eq!(listed(&sidecar, "other")["origin"], "left behind");
    let refused = sidecar.call(&["destinations", "delete", "other"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--purge"), "{refused:?}");

    fs::write(&path, &good).expect("ours");
    sidecar.hang_up();
    sidecar.says("the configuration was read again", 2);
    let posts = load.stop();
    let lags = sidecar.drain(&["hook", "other"]);
    let (hook, other) = (Arrived::at_webhook(&receiver.arrivals()), Arrived::at_webhook(&other.arrivals()));
    hook.holds(&posts, "hook");
    hook.equals(&other);
    assert_eq!(other.repeats_excused_by(&BTreeMap::new()), 0, "it goes on where it was");
    balance_closes(&lags, &["hook", "other"], hook.len());
}

/// What a receiver knows its sender by is a header here: of a key that it does not know any more nothing is taken.
#[test]
fn a_batch_that_was_refused_goes_under_its_id_by_the_credentials_of_a_changed_file() {
    let receiver = Receiver::start();
    receiver.judge(|arrival| if arrival.life == 0 { Answer::Status(401) } else { Answer::Ok });
    let home = Home::new("keys").webhook("hook", &receiver, "batch_records_max = 100\nordered = true");
    let sidecar = home.start();
    let load = Load::start("keys", 10, 1, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 20 && receiver.count() > 0));
    let refused = "forebay_delivery_verdicts_total{destination=\"hook\",outcome=\"refused\"}";
    assert!(wait_for(|| metric(&home, refused) != "0"));
    let path = home.path("forebay.toml");
    let old = fs::read_to_string(&path).expect("it is there");
    let new = old.replace("env:FOREBAY_TEST_LIFE", "1");
    assert_ne!(new, old);
    fs::write(&path, new).expect("ours");
    sidecar.hang_up();
    sidecar.says("the configuration was read again", 1);
    let before = load.acknowledged();
    assert!(wait_for(|| load.acknowledged() > before + 20));
    let posts = load.stop();
    let lags = sidecar.drain(&["hook"]);
    let arrivals = receiver.arrivals();
    let after: Vec<_> = arrivals.iter().filter(|arrival| arrival.life == 1).collect();
    assert_eq!(after[0].id, arrivals[0].id, "the batch that was refused comes first");
    let since = arrivals.iter().skip_while(|arrival| arrival.life == 0).count();
    assert_eq!(since, after.len(), "the old key is gone");
    let records = |arrival: &&Arrival| serde_json::from_slice::<Vec<Value>>(&arrival.body).expect("a batch");
    let keys: Vec<_> = after.iter().flat_map(records).map(|record| record["key"].clone()).collect();
    let mut keys = &keys[..];
    for post in &posts {
        // In its SDK's body they stand by their flags.
        let (of_it, behind) = keys.split_at(post.keys.len());
        assert!(of_it.iter().all(|key| post.keys.iter().any(|posted| key == posted)), "not in order: {of_it:?}");
        keys = behind;
    }
    let arrived = Arrived::at_webhook(&arrivals);
    arrived.holds(&posts, "hook");
    balance_closes(&lags, &["hook"], arrived.len());
}

/// Before, no command took such a loss: nothing was deleted until the disk was full.
#[test]
fn a_floor_that_is_gone_keeps_the_whole_log_until_its_loss_is_accepted() {
    let receiver = Receiver::start();
    let home = Home::new("pinned").webhook("hook", &receiver, "");
    let sidecar = home.start();
    let load = Load::start("pinned", 8, 1, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 5));
    load.stop();
    let refused = sidecar.call(&["destinations", "accept-floor-loss", "--yes"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no cursors were lost"), "{refused:?}");
    sidecar.kill();
    fs::remove_file(home.path("data/floor")).expect("it is there");

    let sidecar = home.start();
    sidecar.says("forebay destinations accept-floor-loss", 1);
    assert_eq!(metric(&home, "forebay_floor_pinned"), "1");
    let looked = sidecar.call(&["destinations", "accept-floor-loss"]);
    let (told, why) = (String::from_utf8_lossy(&looked.stdout), String::from_utf8_lossy(&looked.stderr));
    assert!(!looked.status.success() && told.contains("lost cursors") && why.contains("--yes"), "{looked:?}");
    assert_eq!(metric(&home, "forebay_floor_pinned"), "1", "it was only shown");
    assert_eq!(sidecar.asked(&["destinations", "accept-floor-loss", "--yes"])["accepted"], true);
    assert_eq!(metric(&home, "forebay_floor_pinned"), "0");
}

#[test]
fn a_destination_that_refused_and_was_mended_is_tried_when_its_operator_says_so() {
    let receiver = Receiver::start();
    receiver.script(|_| Answer::Status(401));
    let home = Home::new("probed").webhook("hook", &receiver, "batch_records_max = 100");
    let sidecar = home.start();
    let load = Load::start("probed", 9, 1, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 20));
    let posts = load.stop();
    let refused = "forebay_delivery_verdicts_total{destination=\"hook\",outcome=\"refused\"}";
    let heard = |refusals: u64| wait_for(|| home.metric(refused).is_some_and(|heard| heard >= refusals));
    // By itself it is tried after half a minute at least, then a minute, then two, then four.
    for refusals in 1..=4 {
        assert!(heard(refusals), "it was tried, and waits");
        if refusals == 4 {
            receiver.script(|_| Answer::Ok);
        }
        sidecar.asked(&["destinations", "probe", "hook"]);
    }
    let lags = sidecar.drain(&["hook"]);
    let arrived = Arrived::at_webhook(&receiver.arrivals());
    arrived.holds(&posts, "hook");
    balance_closes(&lags, &["hook"], arrived.len());
}

#[test]
fn a_name_that_leads_to_this_machine_is_refused_to_a_destination_of_the_api() {
    let receiver = Receiver::start();
    let home = Home::new("guarded");
    let sidecar = home.start();
    let url = receiver.url().replace("127.0.0.1", "localhost");
    assert!(url.contains("localhost"), "{url}");
    let made = settings(&home, "inside", &url, "start = \"earliest\"");
    sidecar.asked(&["destinations", "create", made.to_str().expect("UTF-8")]);
    let load = Load::start("guarded", 8, 1, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 5));
    let refused = || sidecar.call(&["lag"]);
    let told = wait_for(|| String::from_utf8_lossy(&refused().stdout).contains("loopback"));
    assert!(told, "{:?}", refused());
    load.stop();
    assert_eq!(receiver.count(), 0, "nothing was sent there");
    let pending = listed(&sidecar, "inside")["records_pending"].as_u64().expect("a number");
    let refused = sidecar.call(&["destinations", "delete", "inside", "--purge"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--yes"), "{refused:?}");
    assert_eq!(listed(&sidecar, "inside")["records_pending"].as_u64(), Some(pending), "nobody was asked");
    let purged = sidecar.asked(&["destinations", "delete", "inside", "--purge", "--yes"]);
    assert_eq!((purged["records_pending"].as_u64(), &purged["deleted"]), (Some(pending), &true.into()));
}
