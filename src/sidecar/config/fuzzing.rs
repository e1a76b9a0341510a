//! What the fuzzer of the configuration calls: see [`crate::fuzzing`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{
    DeliveryConfig, FileContent, Finding, Ground, Outside, Secret, Surroundings, Through, any_error, check,
    check_destination, check_environment, render,
};

/// In every secret that there is here.
const CANARY: &str = "canary-9f2c";

/// `data`: a configuration file, or, where its first byte is a zero, settings as the API gets them. Every text is a
/// configuration or has mistakes that are named by line; no secret is in what is told of it; and nothing that comes through
/// the API asks for a variable or a file of the machine.
pub fn configuration(data: &[u8]) {
    match data.split_first() {
        Some((0, settings)) => through_the_api(settings),
        _ => file(data),
    }
}

fn file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| (name != "UNSET").then(|| CANARY.to_owned());
    let file = |path: &Path| match path.to_str() {
        Some("/etc/forebay/closed") => Ok(FileContent { bytes: CANARY.into(), world_readable: false }),
        Some("/etc/forebay/open") => Ok(FileContent { bytes: CANARY.into(), world_readable: true }),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let ground =
        |_: &Path| Ok(Ground { nearest: "/".into(), is_directory: true, writable: true, disk_bytes: 100 << 30 });
    let secrets = BTreeMap::new();
    let base = Path::new("/etc/forebay");
    let outside = Outside { through: Through::File, secrets: &secrets, base, env: &env, file: &file, ground: &ground };
    let (config, findings) = check(text, &outside);
    told(text, &findings, config.is_none());
    let shown = format!("{config:?}");
    assert!(text.contains(CANARY) || !shown.contains(CANARY), "a secret is shown");
}

fn through_the_api(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environments = ["acme-prod".to_owned()];
    let delivery = DeliveryConfig::default();
    let secrets = BTreeMap::from([("hook".to_owned(), Secret::new(format!("https://hook.example/{CANARY}")))]);
    let around = Surroundings { environments: &environments, delivery: &delivery, secrets: &secrets };
    let destination = check_destination(text, &around);
    told(text, &destination.findings, destination.value.is_none());
    let environment = check_environment(text, &around);
    told(text, &environment.findings, environment.value.is_none());
    for (shown, value) in [
        (&destination.shown, format!("{:?}", destination.value)),
        (&environment.shown, format!("{:?}", environment.value)),
    ] {
        assert!(text.contains(CANARY) || !(shown.contains(CANARY) || value.contains(CANARY)), "a secret is shown");
    }
    if destination.value.is_some() {
        let names_the_machine = |line: &str| ["= \"env:", "= \"file:"].iter().any(|part| line.contains(part));
        let shown = destination.shown.lines().find(|line| names_the_machine(line));
        // Where a text may be anything, an event's name for one, this is a text as well.
        assert!(shown.is_none_or(|line| !line.contains("key =") && !line.contains("url =")), "{shown:?}");
    }
}

fn told(text: &str, findings: &[Finding], refused: bool) {
    assert_eq!(refused, any_error(findings), "it is taken, or a mistake is named");
    let lines = text.lines().count() + 1;
    for finding in findings {
        assert!(finding.line.is_none_or(|line| (1..=lines).contains(&line)), "line {:?} of {lines}", finding.line);
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
    }
    let told = render("forebay.toml", findings);
    assert!(text.contains(CANARY) || !told.contains(CANARY), "a secret is told");
}
