//! What `check` makes of whole files: the documented ones, files full of mistakes, and any text at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use proptest::prelude::*;

use self::ground::ground;
use super::raw::{self, Section};
use super::report::Report;
use super::*;

mod ground;
mod overflow;
mod pace;
mod services;

const EXAMPLE: &str = include_str!("../../../forebay.example.toml");

/// The shape that was agreed on before anything was built.
const AGREED: &str = r#"
data_dir = "./data"
[ingest]
listen = "127.0.0.1:8080"
[grpc]
listen = "127.0.0.1:9090"
[[environments]]
id = "acme-prod"
name = "production"
sdk_keys = ["env:ACME_SDK_KEY"]
[[destinations]]
id = "acme-hook"
environments = ["acme-prod"]
type = "webhook"
url = "http://127.0.0.1:9000/impressions"
compression = "gzip"            # or "none"
[[destinations]]
id = "acme-archive"
environments = ["acme-prod"]
type = "file"
directory = "./out"
"#;

/// Checks in a world where every variable is set and only `/etc/forebay/secrets/open` and `closed` exist.
fn check_text(text: &str) -> (Option<Config>, Vec<Finding>) {
    let env =
        |name: &str| (name != "UNSET").then(|| if name == "EMPTY" { String::new() } else { format!("{name}-value") });
    let file = |path: &Path| match path.strip_prefix("/etc/forebay/secrets/").ok().and_then(Path::to_str) {
        Some("open") => Ok(FileContent { bytes: b"from-open\n".to_vec(), world_readable: true }),
        Some("closed") => Ok(FileContent { bytes: b"from-closed\r\n".to_vec(), world_readable: false }),
        Some("binary") => Ok(FileContent { bytes: vec![0xff, 0xfe], world_readable: false }),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    check(
        text,
        &Outside {
            through: Through::File,
            secrets: &BTreeMap::new(),
            base: Path::new("/etc/forebay"),
            env: &env,
            file: &file,
            ground: &ground,
        },
    )
}

/// Each finding in one line: number, first letter of its severity, path, message.
fn told(findings: &[Finding]) -> Vec<String> {
    let one = |finding: &Finding| {
        let severity = if finding.severity == Severity::Error { 'E' } else { 'W' };
        format!("{} {severity} {}: {}", finding.line.unwrap_or(0), finding.path, finding.message)
    };
    findings.iter().map(one).collect()
}

/// A good file with one environment and one destination, around `extra` at its top.
fn with(extra: &str) -> String {
    format!(
        "data_dir = \"data\"\n{extra}\n[[environments]]\nid = \"a\"\nsdk_keys = [\"env:A\"]\n\
         [[destinations]]\nid = \"d\"\nenvironments = [\"a\"]\ntype = \"file\"\ndirectory = \"out\"\n"
    )
}

/// The same, and one more destination made of `lines`.
fn with_destination(lines: &str) -> String {
    format!("{}[[destinations]]\nid = \"x\"\nenvironments = [\"a\"]\n{lines}", with(""))
}

/// The destination that was added to the good file.
fn added(text: &str) -> Destination {
    let (config, findings) = check_text(text);
    assert_eq!(told(&findings), Vec::<String>::new());
    config.expect("good").destinations.remove(1)
}

fn messages(text: &str) -> Vec<String> {
    told(&check_text(text).1)
}

/// Claims that the one finding of `text` holds `part`.
#[track_caller]
fn assert_only(text: &str, part: &str) {
    let found = messages(text);
    assert!(found.len() == 1 && found[0].contains(part), "wanted one finding with {part:?}, got {found:#?}");
}

#[test]
fn the_agreed_shape_is_taken_without_a_word() {
    let (config, findings) = check_text(AGREED);
    assert_eq!(told(&findings), Vec::<String>::new());
    let config = config.expect("no finding is an error");
    assert_eq!(config.data_dir, Path::new("/etc/forebay/./data"));
    assert_eq!(config.environments[0].name, "production");
    assert_eq!(config.environments[0].sdk_keys[0].reveal(), "ACME_SDK_KEY-value");
    let [hook, archive] = config.destinations.as_slice() else { panic!("two destinations") };
    assert_eq!((hook.id.as_str(), hook.start, hook.batch_records_max), ("acme-hook", Start::Earliest, 1_000));
    let SinkConfig::Webhook(webhook) = &hook.sink else { panic!("a webhook") };
    assert_eq!(webhook.url.uri(), "http://127.0.0.1:9000/impressions");
    let SinkConfig::File(file) = &archive.sink else { panic!("a file") };
    assert_eq!(file.directory, Path::new("/etc/forebay/./out"));
    assert_eq!(archive.concurrency, 1);
}

/// The example with the parts that are not in use.
fn whole_example() -> String {
    EXAMPLE.replace("## ", "")
}

#[test]
fn the_example_is_good_and_shows_the_defaults_as_they_are() {
    assert_eq!(told(&check_text(EXAMPLE).1), Vec::<String>::new());
    let whole = whole_example();
    let (config, findings) = check_text(&whole);
    assert_eq!(told(&findings), Vec::<String>::new());
    let shown: String = whole
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(shown, whole);
    let (explicit, findings) = check_text(&shown);
    assert_eq!(told(&findings), Vec::<String>::new());
    assert_eq!(format!("{:#?}", explicit.expect("good")), format!("{:#?}", config.expect("good")));
}

#[test]
fn the_example_names_every_key_there_is() {
    // What the checker asks for on its way through the example is every key of every section and of all types.
    let whole = whole_example();
    let asked = asked(&whole);
    assert!(
        asked.contains(&("ingest".into(), "queue_bytes_max")) && asked.contains(&("destinations".into(), "rotate_age"))
    );
    for (table, key) in asked {
        let named = |line: &str| {
            let line = line.trim_start_matches(['#', ' ']);
            let inline = table.rsplit('.').next().map(|name| format!("{name} = {{"));
            inline.is_some_and(|table| line.starts_with(&table) && line.contains(&format!(" {key} = ")))
                || line.starts_with(&format!("{key} ="))
                || line == format!("[{key}]")
                || line == format!("[[{key}]]")
                || line == format!("[{table}.{key}]")
        };
        assert!(whole.lines().any(named), "`{key}` of [{table}] is not in the example");
    }
}

fn asked(text: &str) -> BTreeSet<(String, &'static str)> {
    let (report, mut document) = Report::parse(text);
    let destinations = raw::take_tables(&mut document, "destinations");
    let env = |_: &str| Some(String::from("value"));
    let file = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let outside = Outside {
        through: Through::File,
        secrets: &BTreeMap::new(),
        base: Path::new("/"),
        env: &env,
        file: &file,
        ground: &ground,
    };
    let _ = check::read(Section::root(&report, &document), destinations, &outside);
    report.asked()
}

#[test]
fn the_defaults_in_code_are_the_defaults_of_a_file() {
    let (config, _) = check_text(&with(""));
    let config = config.expect("good");
    let default = Config::default();
    assert_eq!(config.ingest, default.ingest);
    assert_eq!(config.grpc, default.grpc);
    assert_eq!(config.admin, default.admin);
    assert_eq!(config.log, default.log);
    assert_eq!(config.delivery, default.delivery);
    assert_eq!(config.shutdown_grace, default.shutdown_grace);
    let by_hand = Destination::new("d", vec!["a".into()], SinkConfig::File(FileConfig::new("/etc/forebay/out")));
    assert_eq!(format!("{:?}", config.destinations[0]), format!("{by_hand:?}"));
}

/// Directories are named by ids, and requests of the API: what could lead elsewhere is none.
#[test]
fn ids_that_would_be_paths_are_refused_with_their_line() {
    let long = "x".repeat(4_096);
    let ids = ["../acme", "..", ".", "a/b", "/etc", "a/../b", "a\\\\b", "a\\u0000b", "\\u0000", "\u{212a}elvin", &long];
    for bad in ids {
        for (environment, destination, mistake) in
            [(bad, "d", "3 E environments[0].id: "), ("a", bad, "6 E destinations[0].id: ")]
        {
            let (config, findings) = check_text(&format!(
                "data_dir = \"data\"\n[[environments]]\nid = \"{environment}\"\nsdk_keys = [\"env:A\"]\n\
                 [[destinations]]\nid = \"{destination}\"\nenvironments = [\"{environment}\"]\ntype = \"file\"\n\
                 directory = \"out\"\n"
            ));
            let told = told(&findings);
            assert!(config.is_none(), "{bad:?}");
            let named = told.iter().any(|line| line.starts_with(mistake) && line.ends_with(" can't be an id"));
            assert!(named && told.iter().all(|line| !line.contains('\0')), "{bad:?}: {told:#?}");
        }
    }
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"data_dir = 7
shutdown_grace = "20"
[ingest]
lisen = "127.0.0.1:8080"
body_bytes_max = "64mb"
[grpc]
listen = "0.0.0.0:9090"
[log]
segment_bytes = "1KB"
[[environments]]
id = "acme prod"
sdk_keys = ["env:UNSET"]
[[environments]]
id = "b"
sdk_keys = ["env:B"]
[[environments]]
id = "b"
sdk_keys = ["env:B"]
[[destinations]]
id = "d"
environments = ["c"]
type = "webhook"
url = "http:///x"
compression = "zip"
[[destinations]]
environments = []
type = "ftp"
whatever = 1
[[destinations]]
id = "split"
environments = ["b"]
type = "upstream"
"#;
    let (config, findings) = check_text(text);
    assert!(config.is_none());
    assert_eq!(
        told(&findings),
        [
            "1 E data_dir: a string belongs here, not a number",
            "2 E shutdown_grace: \"20\" is not a duration",
            "4 E ingest.lisen: unknown key",
            "5 E ingest.body_bytes_max: \"64mb\" is not a size",
            "7 E grpc.listen: this API has no authentication yet and must not be reachable from elsewhere",
            "9 E log.segment_bytes: 1KB is too small",
            "11 E environments[0].id: \"acme prod\" can't be an id",
            "12 E environments[0].sdk_keys[0]: the environment variable \"UNSET\" is not set",
            "16 E environments[b]: an environment \"b\" exists already, in line 13",
            "18 W environments[b].sdk_keys[0]: this key is the same as the one in line 15",
            "21 E destinations[d].environments[0]: there is no environment \"c\"",
            "23 E destinations[d].url: the address has no host",
            "24 E destinations[d].compression: \"zip\" is not known here",
            "25 E destinations[1]: `id` is missing",
            "26 E destinations[1].environments: this destination reads no environment",
            "27 E destinations[1].type: there is no type \"ftp\"",
        ]
    );
    assert!(findings.iter().all(|finding| !finding.remedy.is_empty()), "each says what to do");
    assert_eq!(findings[2].remedy, "did you mean `listen`?");
}

#[test]
fn a_torn_file_reports_its_torn_lines_and_the_mistakes_around_them() {
    let text =
        with("shutdown_grace = 20s\n[ingest]\nlisten = \"nowhere\"\nbody_bytes_max = \n[log]\nsegment_bytes = \"1\"");
    let found = messages(&text);
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with("2 E : this is not TOML"), "{found:#?}");
    assert!(found[1].starts_with("4 E ingest.listen"), "{found:#?}");
    assert!(found[2].starts_with("5 E : this is not TOML"), "{found:#?}");
    assert!(found[3].starts_with("7 E log.segment_bytes"), "{found:#?}");
}

#[test]
fn a_torn_table_line_does_not_drag_the_keys_below_it_into_the_report() {
    assert_only(&with("[ingest\nlisten = \"127.0.0.1:8080\""), "2 E : this is not TOML");
}

#[test]
fn unknown_keys_are_refused_in_every_table() {
    for (text, path) in [
        (with("x = 1"), "x"),
        (with("[ingest]\nx = 1"), "ingest.x"),
        (with("[grpc]\nx = 1"), "grpc.x"),
        (with("[admin]\nx = 1"), "admin.x"),
        (with("[log]\nx = 1"), "log.x"),
        (with("[delivery]\nx = 1"), "delivery.x"),
        (
            with("[[environments]]\nid = \"a2\"\nsdk_keys = [\"env:A2\"]\nx = 1").replace("[\"a\"]", "[\"a\", \"a2\"]"),
            "environments[a2].x",
        ),
        (with_destination("type = \"file\"\ndirectory = \"o\"\nurl = \"http://h\""), "destinations[x].url"),
        (with_destination("type = \"webhook\"\nurl = \"http://h\"\nrotate_age = \"1h\""), "destinations[x].rotate_age"),
        (with("\"a\\u001b[31m\" = 1"), "\"a\\u{1b}[31m\""),
    ] {
        assert_only(&text, &format!("E {path}: unknown key"));
    }
}

#[test]
fn an_unknown_key_is_answered_with_the_known_ones() {
    let (_, findings) = check_text(&with("[ingest]\nmemory_bytes_max = \"1MiB\"\nzzz = 1"));
    let last = findings.last().expect("at least the unknown key");
    assert_eq!(last.remedy, "remove it; known here: listen, body_bytes_max, memory_bytes_max, queue_bytes_max");
}

#[test]
fn a_file_of_thousands_of_tables_or_brackets_is_judged_all_the_same() {
    let ids: Vec<String> = (0..limits::TABLES_MAX).map(|n| format!("\"e{n}\"")).collect();
    let tables: String = ids.iter().map(|id| format!("[[environments]]\nid = {id}\nsdk_keys = [{id}]\n")).collect();
    let text = format!(
        "data_dir = \"d\"\n{tables}[[destinations]]\nid = \"d\"\ntype = \"file\"\ndirectory = \"o\"\nenvironments = [{}]\n",
        ids.join(",")
    );
    assert_eq!(check_text(&text).0.expect("only warnings").destinations[0].environments.len(), limits::TABLES_MAX);
    let one_more = text + "[[environments]]\nid = \"more\"\nsdk_keys = [\"env:M\"]\n";
    assert!(messages(&one_more).iter().any(|told| told.contains("10001 environments are more than")));
    assert!(check_text(&format!("x = {}", "[".repeat(100_000))).0.is_none());
}

#[test]
fn what_is_required_is_missed() {
    assert_only(&with("").replace("data_dir = \"data\"", ""), "`data_dir` is missing");
    assert_only(&with("").replace("directory = \"out\"", ""), "destinations[d]: `directory` is missing");
    assert_only(&with_destination("type = \"webhook\""), "destinations[x]: `url` is missing");
    assert_only(&with_destination(""), "destinations[x]: `type` is missing");
    let found = messages("data_dir = \"d\"");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("there are no environments"));
}

#[test]
fn a_section_of_the_wrong_type_is_one_finding() {
    assert_only(&with("ingest = 1"), "ingest: a table belongs here, not a number");
    let text = "environments = 3\ndata_dir = \"d\"";
    assert!(
        messages(text)[0].contains("environments: a list of tables belongs here, not a number"),
        "{:?}",
        messages(text)
    );
}

#[test]
fn an_environment_that_nobody_reads_is_a_warning() {
    let text = with("") + "[[environments]]\nid = \"lonely\"\nsdk_keys = [\"env:L\"]\n";
    let (config, findings) = check_text(&text);
    assert!(config.is_some(), "a warning keeps nothing from starting");
    assert!(told(&findings)[0].contains("W environments[lonely]: no destination reads this environment"));
    // A destination that reads it and has another mistake does not make it look unread.
    let text = text + "[[destinations]]\nid = \"y\"\nenvironments = [\"lonely\"]\ntype = \"webhook\"\n";
    assert_only(&text, "`url` is missing");
}

#[test]
fn an_environment_without_keys_is_a_warning() {
    let text = with("").replace("sdk_keys = [\"env:A\"]", "");
    assert_only(&text, "W environments[a]: no SDK key belongs to this environment");
    let text = with("").replace("[\"env:A\"]", "[]");
    assert_only(&text, "W environments[a].sdk_keys: no SDK key belongs");
}

#[test]
fn one_key_in_two_environments_is_refused_wherever_it_comes_from() {
    let text = with("").replace("env:A", "from-closed").replace("[\"a\"]", "[\"a\", \"b\"]")
        + "[[environments]]\nid = \"b\"\nsdk_keys = [\"file:secrets/closed\"]\n";
    let found = messages(&text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("W environments[a].sdk_keys[0]: an SDK key stands here"));
    assert!(found[1].contains("E environments[b].sdk_keys[0]: this key belongs to environments[a] already, in line 5"));
}

#[test]
fn secrets_that_are_not_there_are_errors_and_open_ones_warnings() {
    let key = |value: &str| with("").replace("env:A", value);
    assert_only(&key("file:secrets/open"), "W environments[a].sdk_keys[0]: every user of this machine may read");
    assert_only(
        &key("file:secrets/none"),
        "E environments[a].sdk_keys[0]: the file \"/etc/forebay/secrets/none\" can't",
    );
    assert_only(&key("file:secrets/binary"), "is not text");
    assert_only(&key("file:"), "names no file");
    assert_only(&key("env:"), "names no environment variable");
    assert_only(&key("env:EMPTY"), "the value is empty");
    assert_only(&key("$ACME_KEY"), "looks like a shell variable");
    assert_only(&key("two words"), "can't be an SDK key");
    let (config, findings) = check_text(&key("file:secrets/closed"));
    assert_eq!(told(&findings), Vec::<String>::new());
    assert_eq!(config.expect("good").environments[0].sdk_keys[0].reveal(), "from-closed", "without its line break");
}

#[test]
fn headers_are_checked_and_only_those_that_sound_secret_are_warned_of() {
    let hook =
        |headers: &str| with_destination(&format!("type = \"webhook\"\nurl = \"http://h\"\nheaders = {headers}"));
    let (config, findings) = check_text(&hook("{ authorization = \"env:TOKEN\", x-team = \"growth\" }"));
    assert_eq!(told(&findings), Vec::<String>::new());
    let config = config.expect("good");
    let SinkConfig::Webhook(webhook) = &config.destinations[1].sink else { panic!("a webhook") };
    assert_eq!(webhook.headers[0].1.reveal(), "TOKEN-value");
    assert_only(&hook("{ x-api-key = \"abc\" }"), "W destinations[x].headers.x-api-key: this looks like a secret");
    assert_only(&hook("{ Content-Type = \"text/plain\" }"), "Forebay sets this header itself");
    assert_only(&hook("{ \"a b\" = \"c\" }"), "can't be a header's name");
    assert_only(&hook("{ a = \"b\\nc\" }"), "can't be sent in a header");
    assert_only(&hook("{ a = \"b\", A = \"c\" }"), "stands here twice");
    assert_only(&hook("{ a = 1 }"), "a string belongs here, not a number");
    assert_only(&hook("[]"), "a table belongs here, not a list");
}

#[test]
fn an_address_may_be_a_secret() {
    let (config, findings) = check_text(&with_destination("type = \"webhook\"\nurl = \"env:URL\""));
    assert!(config.is_none());
    assert!(told(&findings)[0].contains("does not start with http"), "the variable's value was judged");
    assert!(!render("f", &findings).contains("URL-value"));
}

#[test]
fn bounds_that_cannot_stand_together_are_refused() {
    assert_only(
        &with("[ingest]\nmemory_bytes_max = \"255MiB\""),
        "ingest.memory_bytes_max: memory_bytes_max is 255MiB, and a body of body_bytes_max, 64MiB, takes up to three times",
    );
    assert_eq!(messages(&with("[ingest]\nmemory_bytes_max = \"256MiB\"")), Vec::<String>::new());
    let (_, findings) = check_text(&with("[ingest]\nbody_bytes_max = \"100MiB\""));
    let remedies: Vec<&str> = findings.iter().map(|finding| finding.remedy.as_str()).collect();
    assert_eq!(
        remedies,
        [
            "raise memory_bytes_max to 400MiB or more, or lower body_bytes_max",
            "raise queue_bytes_max to 100MiB or more, or lower body_bytes_max"
        ]
    );
    let large = |body: &str| {
        with(&format!("[ingest]\nbody_bytes_max = \"{body}\"\nmemory_bytes_max = \"2GiB\"\nqueue_bytes_max = \"2GiB\""))
    };
    assert_only(
        &large("404MiB"),
        "ingest.body_bytes_max: of a body of 404MiB up to 513MiB may have to be stored, and the log takes 512MiB at once",
    );
    assert_eq!(messages(&large("403MiB")), Vec::<String>::new());
    assert_only(
        &with("[log]\nbudget_bytes = \"200MiB\""),
        "log.budget_bytes: the budget of 200MiB does not hold 5 segments",
    );
    assert_only(
        &with("[delivery]\nbatch_memory_bytes = \"4MiB\""),
        "destinations[d].batch_bytes_max: a batch of 8MiB does not fit",
    );
    assert_only(
        &with("[delivery]\nrequests_max = 2").replace("\"out\"", "\"out\"\nconcurrency = 3"),
        "concurrency: 3 requests are more",
    );
    assert_only(&with("[log]\nbudget_bytes = \"96%\""), "96% is out of bounds");
}

#[test]
fn a_slip_is_not_taken_for_what_is_written_down_already() {
    let (_, findings) = check_text(&with("[log]\n[logg]"));
    assert_eq!(findings.len(), 1);
    assert!(findings[0].remedy.starts_with("remove it; known here: "), "{:?}", findings[0].remedy);
    let (_, findings) = check_text(&with("[logg]"));
    assert_eq!(findings[0].remedy, "did you mean `log`?");
}

#[test]
fn the_address_of_the_api_is_read_whatever_else_is_wrong() {
    let env = |_: &str| None;
    let file = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let outside = Outside {
        through: Through::File,
        secrets: &BTreeMap::new(),
        base: Path::new("/etc/forebay"),
        env: &env,
        file: &file,
        ground: &ground,
    };
    let read = |text: &str| check::grpc_listen(text, &outside);
    assert_eq!(read(&with("[grpc]\nlisten = \"[::1]:7\"\n[oops]")).unwrap().to_string(), "[::1]:7");
    assert_eq!(read("[grpc]\nlisten = \"unix:f.sock\"").unwrap().to_string(), "unix:/etc/forebay/f.sock");
    assert_eq!(read("").unwrap(), GrpcConfig::default().listen);
    assert_eq!(read("[grpc]\nlisten = 7").unwrap_err().len(), 1);
    assert_eq!(read("[grpc").unwrap_err().len(), 1);
}

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The webhook made of these lines, and what is said of it. `WHSEC` is a variable that holds a signing secret.
fn webhook_of(lines: &str) -> (Option<WebhookConfig>, Vec<Finding>) {
    let env = |name: &str| match name {
        "WHSEC" => Some(WHSEC.to_owned()),
        _ => Some(format!("{name}-value")),
    };
    let file = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let text = with_destination(&format!("type = \"webhook\"\nurl = \"https://example.com/\"\n{lines}"));
    let outside = Outside {
        through: Through::File,
        secrets: &BTreeMap::new(),
        base: Path::new("/etc/forebay"),
        env: &env,
        file: &file,
        ground: &ground,
    };
    let (config, findings) = check(&text, &outside);
    let webhook = config.and_then(|config| match config.destinations.into_iter().next_back()?.sink {
        SinkConfig::Webhook(webhook) => Some(webhook),
        _ => None,
    });
    (webhook, findings)
}

#[track_caller]
fn refused_webhook(lines: &str, part: &str) {
    let (_, findings) = webhook_of(lines);
    let told = told(&findings);
    assert!(told.len() == 1 && told[0].contains(part), "wanted one finding with {part:?}, got {told:#?}");
}

#[test]
fn dead_letters_have_no_limits_but_those_that_are_set() {
    let with = |limits: &str| with_destination(&format!("type = \"file\"\ndirectory = \"x\"\n{limits}"));
    let (config, _) = check_text(&with("dead_letters = { max_age = \"30d\", max_bytes = \"1GiB\" }"));
    let limits = config.expect("good").destinations[1].dead_letters;
    let set = DeadLettersConfig { max_age: Some(Duration::from_secs(30 * 86_400)), max_bytes: Some(1 << 30) };
    assert_eq!(limits, set);
    let (config, _) = check_text(&with(""));
    assert_eq!(config.expect("good").destinations[1].dead_letters, DeadLettersConfig::default());
    assert_only(&with("dead_letters = { max_age = \"1m\" }"), "destinations[x].dead_letters.max_age");
    assert_only(&with("dead_letters = { max_size = \"1GiB\" }"), "max_size");
}

#[test]
fn a_filter_is_three_lists_of_patterns() {
    let with = |filter: &str| {
        with_destination(&format!("type = \"file\"\ndirectory = \"x\"\n[destinations.filter]\n{filter}"))
    };
    let (config, findings) =
        check_text(&with("flags = [\"exp_*\", \"!exp_internal\"]\ntreatments = [\"!control\"]\nlabels = ['in \\*']"));
    assert_eq!(told(&findings), Vec::<String>::new());
    let filter = config.expect("good").destinations[1].filter.clone();
    let spelled = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect::<Vec<_>>();
    assert_eq!(spelled(&filter.flags), ["exp_*", "!exp_internal"]);
    assert_eq!(
        (spelled(&filter.treatments), spelled(&filter.labels)),
        (vec!["!control".into()], vec![r"in \*".into()])
    );
    assert_only(&with("flags = [\"a*b\"]"), "destinations[x].filter.flags[0]: `*` stands at the end");
    assert_only(&with("flags = ['a\\']"), "nothing stands behind the `\\`");
    assert_only(&with("flag = []"), "unknown key");
    assert_only(&with(&format!("labels = [\"{}\"]", "x".repeat(1_025))), "no name is as long as this");
    assert_only(&with(&format!("labels = [{}]", "\"x\",".repeat(257))), "257 patterns");
}

#[test]
fn what_is_signed_is_compressed_only_where_that_is_asked_for() {
    let signed = |more: &str| webhook_of(&format!("signing_secrets = [\"env:WHSEC\"]\n{more}")).0.unwrap();
    assert_eq!(signed("").compression, Compression::None);
    assert_eq!(signed("compression = \"gzip\"").compression, Compression::Gzip);
    assert_eq!(signed("").signing.len(), 1);
    assert_eq!(webhook_of("").0.unwrap().compression, Compression::Gzip);
}

#[test]
fn a_signing_secret_is_checked_and_not_shown() {
    refused_webhook("signing_secrets = [\"env:OTHER\"]", "starts with whsec_");
    refused_webhook("signing_secrets = []", "nothing would be signed");
    refused_webhook(
        "signing_secrets = [\"env:WHSEC\", \"env:WHSEC\", \"env:WHSEC\", \"env:WHSEC\", \"env:WHSEC\"]",
        "5 secrets",
    );
    refused_webhook(
        &format!("signing_secrets = [\"{WHSEC}\"]"),
        "W destinations[x].signing_secrets[0]: a signing secret stands here",
    );
    let (webhook, _) = webhook_of("signing_secrets = [\"env:WHSEC\"]");
    assert!(!format!("{webhook:?}").contains("MfKQ"));
    refused_webhook("headers = { webhook-signature = \"x\" }", "Forebay sets this header itself");
}

#[test]
fn certificates_come_whole_and_with_tls() {
    refused_webhook("client_certificate = \"env:A\"", "a certificate is shown with its key");
    refused_webhook("client_key = \"env:A\"", "a key is of no use alone");
    refused_webhook(
        "client_certificate = \"env:A\"\nclient_key = \"env:B\"",
        "client_certificate: this is no certificate",
    );
    refused_webhook("ca_certificate = \"env:A\"", "ca_certificate: this is no certificate");
    refused_webhook("ca_certificate = \"file:absent.pem\"", "can't be read");
    let plain =
        with_destination("type = \"webhook\"\nurl = \"http://example.com/\"\nca_certificate = \"file:absent.pem\"");
    assert!(messages(&plain).iter().any(|told| told.contains("of no use without TLS")));
}

#[test]
fn networks_that_are_allowed_are_read_with_and_without_their_length() {
    let (webhook, findings) = webhook_of("allow_addresses = [\"169.254.7.0/24\", \"fe80::5\"]");
    assert_eq!(told(&findings), Vec::<String>::new());
    let allowed: Vec<String> = webhook.unwrap().allow_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["169.254.7.0/24", "fe80::5/128"]);
    refused_webhook("allow_addresses = [\"169.254.0.0/33\"]", "is not a network");
    refused_webhook("allow_addresses = \"all\"", "a list belongs here");
}

#[test]
fn listeners_do_not_share_a_port() {
    assert_only(&with("[admin]\nlisten = \"127.0.0.1:8080\""), "admin.listen: 127.0.0.1:8080 is taken by");
    assert_only(&with("[ingest]\nlisten = \"0.0.0.0:9090\""), "grpc.listen: 127.0.0.1:9090 is taken by 0.0.0.0:9090");
    let free =
        with("[ingest]\nlisten = \"127.0.0.1:0\"\n[grpc]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"[::1]:0\"");
    assert_eq!(messages(&free), Vec::<String>::new(), "port 0 is any free one");
}

#[test]
fn two_writers_never_share_a_directory() {
    let file = |directory: &str| with_destination(&format!("type = \"file\"\ndirectory = {directory:?}"));
    assert_only(&file("./x/../out"), "another destination writes to this directory already, in line 10");
    assert_only(&file("data/log"), "inside data_dir");
    assert_eq!(messages(&file("data2")), Vec::<String>::new());
}

#[test]
fn a_budget_is_a_share_or_a_size() {
    let budget = |text: &str| check_text(&with(&format!("[log]\nbudget_bytes = {text}"))).0.expect("good").log.budget;
    assert_eq!(budget("\"50%\""), Budget::FreePercent(50));
    assert_eq!(budget("\"50GiB\""), Budget::Bytes(50 << 30));
    assert_eq!(budget("1073741824"), Budget::Bytes(1 << 30));
    assert_eq!(Budget::FreePercent(80).bytes(u64::MAX), u64::MAX / 100 * 80, "without overflow");
}

#[test]
fn no_secret_shows_in_debug_or_in_any_finding() {
    // Each place where a secret can stand, in good files and in every way we know to get it wrong.
    let c = "canary";
    let key = |line: &str| with("").replace("sdk_keys = [\"env:A\"]", line);
    let hook = |lines: &str| with_destination(&format!("type = \"webhook\"\n{lines}"));
    let texts = [
        key(&format!("sdk_keys = [\"{c}\"]")),
        key(&format!("sdk_keys = [\"{c}\", \"{c}\"]")),
        key(&format!("sdk_keys = [\"{c} {c}\"]")),
        key(&format!("sdk_keys = \"{c}\"")),
        key(&format!("sdk_keys = {c}")),
        key(&format!("sdk_keys = [\"{c}")),
        key(&format!("sdk_keys = [\"${c}\"]")),
        key(&format!("sdk_keys = {{ a = \"{c}\" }}")),
        key(&format!("sdk_key = \"{c}\"")),
        key(&format!("sdk_keys = [\"{c}\"]")) + &format!("[[environments]]\nid = \"b\"\nsdk_keys = [\"{c}\"]\n"),
        hook(&format!("url = \"https://h/{c}?{c}\"")),
        hook(&format!("url = \"https://{c}:{c}@h/\"")),
        hook(&format!("url = \"https://h/#{c}\"")),
        hook(&format!("url = \"{c}\"")),
        hook(&format!("url = {c}")),
        hook(&format!("url = \"http://h\"\nheaders = {{ authorization = \"{c}\" }}")),
        hook(&format!("url = \"http://h\"\nheaders = {{ authorization = \"{c}\\u0000\" }}")),
        hook(&format!("url = \"http://h\"\nheaders = {{ host = \"{c}\" }}")),
        hook(&format!("url = \"http://h\"\nheaders = \"{c}\"")),
        hook(&format!("url = \"http://h\"\nwrite_key = \"{c}\"")),
        hook(&format!("url = \"http://h\"\nheaders = {{ authorization = {c} }}")),
    ];
    for text in texts {
        let (config, findings) = check_text(&text);
        for shown in [format!("{config:?} {findings:?}"), format!("{config:#?}"), render("f.toml", &findings)] {
            assert!(!shown.contains(c), "{text}\nshows it:\n{shown}");
        }
    }
}

#[test]
fn a_file_is_loaded_with_paths_from_its_own_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("forebay.toml");
    let (config, findings) = load(&path);
    assert!(config.is_none() && findings[0].message.starts_with("can't be read"), "{findings:?}");
    write(&dir.path().join("key"), "from-a-file\n");
    write(&path, &with("").replace("env:A", "file:key"));
    let (config, findings) = load(&path);
    let config = config.unwrap_or_else(|| panic!("{findings:?}"));
    assert_eq!(config.data_dir, dir.path().join("data"));
    assert_eq!(config.environments[0].sdk_keys[0].reveal(), "from-a-file");
}

#[expect(clippy::disallowed_methods, reason = "the test plays the operator")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("writes");
}

/// Lines from which random files are made: good ones, torn ones, hostile ones.
fn line() -> impl Strategy<Value = String> {
    let keys = "data_dir|listen|id|name|type|url|headers|sdk_keys|environments|directory|start|budget_bytes|timeout|x";
    let values = "\"[ -~]{0,12}\"|[0-9]{1,20}|-1|true|\\[\\]|\\[\"a\"\\]|\\{ a = \"b\" \\}|\"env:A\"|\"80%\"|\"unix:a\"|1979-05-27|nan|";
    let header = "\\[(ingest|grpc|admin|log|delivery|x)\\]|\\[\\[(environments|destinations|ingest)\\]\\]";
    prop_oneof![
        8 => (keys, values).prop_map(|(key, value)| format!("{key} = {value}")),
        3 => header.prop_map(String::from),
        1 => "\\PC{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_check_panic(text in "\\PC{0,200}") {
        let (config, findings) = check_text(&text);
        prop_assert_eq!(config.is_none(), any_error(&findings));
        let _ = render("f", &findings);
    }

    #[test]
    fn no_file_of_plausible_lines_makes_check_panic(lines in prop::collection::vec(line(), 0..30)) {
        let text = lines.join("\n");
        let (config, findings) = check_text(&text);
        prop_assert_eq!(config.is_none(), any_error(&findings));
        let count = lines.len() + 1;
        for finding in &findings {
            let line = finding.line.expect("every finding of check has a line");
            prop_assert!((1..=count).contains(&line), "line {} of {}", line, count);
        }
    }

    #[test]
    fn no_damage_to_the_example_makes_check_panic(at in 0..EXAMPLE.len(), len in 0_usize..40, put in "\\PC{0,6}") {
        let end = (at + len).min(EXAMPLE.len());
        if EXAMPLE.is_char_boundary(at) && EXAMPLE.is_char_boundary(end) {
            let text = format!("{}{put}{}", &EXAMPLE[..at], &EXAMPLE[end..]);
            let (config, findings) = check_text(&text);
            prop_assert_eq!(config.is_none(), any_error(&findings), "{}", render("f", &findings));
        }
    }
}

#[test]
fn an_upstream_relays_to_split_or_to_what_stands_in_for_it() {
    let of = |lines: &str| {
        let (config, findings) = check_text(&with_destination(&format!("type = \"upstream\"\n{lines}")));
        assert_eq!(told(&findings), Vec::<String>::new(), "{lines}");
        let destination = config.expect("good").destinations.pop().expect("the second one");
        assert_eq!((destination.batch_records_max, destination.concurrency), (1, 8));
        let SinkConfig::Upstream(upstream) = destination.sink else { panic!("an upstream") };
        let bases = [&upstream.events, &upstream.telemetry].map(|base| base.below("x").expect("a path").to_string());
        (bases, upstream.max_bytes)
    };
    let split = ["https://events.split.io/api/x".to_owned(), "https://telemetry.split.io/api/v1/x".to_owned()];
    assert_eq!(of(""), (split.clone(), 1 << 30));
    assert_eq!(of("url = \"https://events.split.io\"").0, split);
    let proxy = ["http://proxy:1/api/x".to_owned(), "http://proxy:1/api/v1/x".to_owned()];
    assert_eq!(of("url = \"http://proxy:1/api/\"\nmax_bytes = \"8MiB\""), (proxy.clone(), 8 << 20));
    let mixed = [proxy[0].clone(), split[1].clone()];
    assert_eq!(of("url = \"http://proxy:1\"\ntelemetry_url = \"https://telemetry.split.io/api\"").0, mixed);
}

#[test]
fn an_upstream_has_a_base_without_a_query_no_filter_and_an_environment_for_itself() {
    let upstream = |lines: &str| with_destination(&format!("type = \"upstream\"\n{lines}"));
    assert_only(&upstream("url = \"http://h/api?key=1\""), "destinations[x].url: the address has a query");
    assert_only(&upstream("telemetry_url = \"h\""), "telemetry_url: the address does not start with http");
    assert_only(&upstream("max_bytes = \"1MiB\""), "max_bytes: 1MiB is too small");
    assert_only(&upstream("batch_records_max = 2"), "batch_records_max: 2 is too large");
    assert_only(&upstream("filter = { flags = [\"a\"] }"), "filter: an upstream relays posts whole");
    let two = format!("{}[[destinations]]\nid = \"y\"\nenvironments = [\"a\"]\ntype = \"upstream\"\n", upstream(""));
    assert_only(&two, "environments: the posts of \"a\" go to another upstream already, in line 11");
}
