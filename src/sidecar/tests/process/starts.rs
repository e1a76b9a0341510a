//! Starting, or not: configurations that cannot be used, a data directory that is taken, files that a disk has damaged.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use super::load::post;
use super::sidecar::{Home, copy_binary, to_its_end};
use super::wire::Client;

#[test]
fn every_mistake_of_a_configuration_is_told_at_once() {
    let home = Home::new("mistaken");
    let path = home.path("broken.toml");
    let text = "data_dir = \"./data\"\n[ingest]\nlisten = \"nowhere\"\n[grpc]\nlisten = \"0.0.0.0:9090\"\n\
                [[environments]]\nid = \"acme prod\"\nsdk_keys = [\"env:FOREBAY_TEST_NO_SUCH_KEY\"]\n\
                [[destinations]]\nid = \"hook\"\nenvironments = [\"acme\"]\ntype = \"webhook\"\nurl = \"ftp://x\"\n\
                tiemout = \"1s\"\n";
    fs::write(&path, text).unwrap();
    // What each mistake's line is about.
    let lines = ["3", "5", "7", "8", "11", "13", "14"];
    for command in ["check", "run"] {
        let output = to_its_end(command, &path);
        assert_eq!(output.status.code(), Some(78), "{command}: {output:?}");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        for line in lines {
            let start = format!("broken.toml:{line}: error: ");
            assert!(text.contains(&start), "{command} says nothing of line {line}:\n{text}");
        }
    }
    assert!(!home.path("data").exists(), "nothing was begun");
}

/// As somebody whom the limit holds, which is not root.
#[test]
fn who_may_start_too_few_threads_is_told_so_before_anything_is_begun() {
    let home = Home::new("few-threads");
    fs::set_permissions(home.path("."), Permissions::from_mode(0o777)).unwrap();
    // Where it was built need not be open to everybody.
    let binary = home.path("forebay");
    copy_binary(&binary);
    let config = home.path("small.toml");
    let text = "data_dir = \"./data\"\n[ingest]\nlisten = \"127.0.0.1:0\"\n[grpc]\nlisten = \"127.0.0.1:0\"\n\
                [[environments]]\nid = \"acme\"\nsdk_keys = [\"a-key-for-this-test-alone\"]\n";
    fs::write(&config, text).unwrap();
    let mut command = Command::new("prlimit");
    command.arg("--nproc=4").arg(&binary).args(["run", "--config"]).arg(&config);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let output = command.current_dir("/").stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("threads and needs") && told.contains("ulimit -u"), "{told}");
    assert!(!told.contains("panicked") && !home.path("data").exists(), "{told}");
}

#[test]
fn a_data_directory_has_one_sidecar_and_a_second_is_told_who() {
    let home = Home::new("taken").file("archive", "");
    let mut sidecar = home.start();
    let output = to_its_end("run", &home.write_config_of_a_double());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&sidecar.process().to_string()), "it names the holder: {text}");
    sidecar.wait_until_ready();
}

#[test]
fn lines_that_a_disk_took_from_a_destinations_file_are_counted_among_the_metrics() {
    let home = Home::new("rotten").file("archive", "");
    let more = |name: &str| {
        let keys: Vec<String> = (0..100).map(|n| format!("{name}-{n}")).collect();
        let mut client = Client::connect(home.ingest()).unwrap();
        assert!(matches!(post(&mut client, name, &keys), Ok(200..300)));
    };
    let metric = || home.metric("forebay_file_damaged_lines_total{destination=\"archive\"}");
    let sidecar = home.start();
    more("before");
    sidecar.drain(&["archive"]);
    assert_eq!(metric(), None, "nothing is wrong with it");
    sidecar.terminate();
    assert_eq!(sidecar.wait(), Some(0));
    let file = fs::read_dir(home.path("archive")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    let line = bytes.len() / 2;
    let line = line + bytes[line..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[line + 5..line + 8].fill(0);
    fs::write(&file, bytes).unwrap();
    let sidecar = home.start();
    more("behind");
    sidecar.drain(&["archive"]);
    assert_eq!(metric(), Some(1));
    assert_eq!(home.lines("archive").len(), 199, "every other line is there, and whole");
}
