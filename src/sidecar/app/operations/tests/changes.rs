//! A file that is changed: when it is read again.

use tokio::signal::unix::{SignalKind, signal};

use super::*;

/// Before, what was changed during a long start was not read until the next change.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_changed_while_the_sidecar_started_is_read_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("forebay.toml");
    write(&path, &file_text(&["archive"]));
    let of = ConfigFile::before_reading(&path);
    let config = load(&path);
    write(&path, &file_text(&["archive", "new"]));
    let house = start(&MemDisk::default(), config).await;
    house.operations.comes_from(of);
    let (stop, shutdown) = crate::shutdown::channel();
    let hangups = signal(SignalKind::hangup()).unwrap();
    let watched = tokio::spawn(watch(Arc::clone(&house.operations), hangups, shutdown));
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if house.operations.reloads().done > 0 {
            break;
        }
    }
    assert!(house.registry.runs("new"));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(house.operations.reloads().done, 1, "it has not changed since");
    drop(stop);
    watched.abort();
}
