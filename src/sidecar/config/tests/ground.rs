//! What a configuration asks of the machine: directories, disks, addresses.

use super::*;

/// A machine with a disk of 100 GiB; `/readonly` may not be written to, `/file` is a file, `/hidden` can't be looked at, `/proc`
/// is no disk, and `/run` and `/etc/forebay` are there.
pub(super) fn ground(directory: &Path) -> io::Result<Ground> {
    let ground = |nearest: &str, is_directory, writable| {
        Ok(Ground { nearest: nearest.into(), is_directory, writable, disk_bytes: 100 << 30 })
    };
    match directory.iter().nth(1).and_then(|name| name.to_str()) {
        Some("readonly") => ground("/readonly", true, false),
        Some("file") => ground("/file", false, true),
        Some("hidden") => Err(io::ErrorKind::PermissionDenied.into()),
        Some("proc") => Ok(Ground { nearest: "/proc".into(), is_directory: true, writable: true, disk_bytes: 0 }),
        Some("run") => ground("/run", true, true),
        Some("etc") => ground("/etc/forebay", true, true),
        _ => ground("/", true, true),
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_an_error_and_a_destinations_own_a_warning() {
    for (path, why) in [
        ("/readonly/data", "this user may not write to /readonly"),
        ("/file/data", "/file is a file, not a directory"),
        ("/hidden/data", "/hidden/data can't be looked at: permission denied"),
    ] {
        let (config, findings) = check_text(&AGREED.replace("./data", path));
        assert_eq!(told(&findings), [format!("2 E data_dir: {why}")]);
        assert!(config.is_none());
        let (config, findings) = check_text(&AGREED.replace("./out", path));
        let told = told(&findings);
        assert!(
            told.len() == 1 && told[0].ends_with(&format!(" W destinations[acme-archive].directory: {why}")),
            "{told:?}"
        );
        assert!(config.is_some(), "the others go on without it");
    }
}

#[test]
fn a_budget_larger_than_its_disk_is_a_warning() {
    let (config, findings) = check_text(&with("[log]\nbudget_bytes = \"101GiB\""));
    assert!(config.is_some());
    assert_eq!(
        told(&findings),
        ["3 W log.budget_bytes: 101GiB is more than the disk of data_dir holds, which is 100GiB"]
    );
    assert_eq!(messages(&with("[log]\nbudget_bytes = \"100GiB\"")), Vec::<String>::new());
}

#[test]
fn the_operators_api_listens_on_this_machine_only() {
    let grpc = |listen: &str| with(&format!("[grpc]\nlisten = {listen:?}"));
    for local in ["127.0.0.1:7000", "[::1]:7000", "unix:/run/forebay.sock"] {
        assert_eq!(messages(&grpc(local)), Vec::<String>::new());
    }
    for open in ["0.0.0.0:9090", "[::]:9090", "10.1.2.3:9090"] {
        assert_only(&grpc(open), "has no authentication yet");
    }
    assert_only(&grpc("localhost:9090"), "is not an IP address with a port");
    assert_only(&grpc("unix:"), "lacks a path");
    let (config, _) = check_text(&grpc("unix:forebay.sock"));
    assert_eq!(config.expect("good").grpc.listen, Listen::Unix("/etc/forebay/forebay.sock".into()));
}

/// Before: the check was good, and the sidecar did not start.
#[test]
fn what_a_start_would_fail_at_is_an_error() {
    let (config, findings) = check_text(&AGREED.replace("./data", "/proc/x"));
    assert_eq!(told(&findings), ["2 E data_dir: /proc keeps no files"]);
    assert!(config.is_none());
    let grpc = |listen: &str| with(&format!("[grpc]\nlisten = {listen:?}"));
    assert_only(&grpc("unix:/nowhere/x.sock"), "/nowhere is not there");
    assert_only(&grpc("unix:/readonly/x.sock"), "this user may not write to /readonly");
    assert_only(&grpc("unix:/file/x.sock"), "/file is a file, not a directory");
}
