//! Starting, or not: configurations that cannot be used, and a data directory that is taken.

use std::fs;

use super::sidecar::{Home, to_its_end};

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
