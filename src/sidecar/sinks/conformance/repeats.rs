//! A batch whose way was cut, anywhere, and a restart: what is sent then is the same batch under the same ids.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::Response;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::sim_disk::PowerCut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::files::Files;
use super::{Class, LATER, SINKS, deliver, record_ids, same_ids};
use crate::delivery::outcome::Outcome;
use crate::sinks::receiver::{serve, whole_request};
use crate::sinks::sample::job;

/// How much of the batch got there before the way was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Nothing,
    Some,
    /// All of it: only the word about it is lost.
    All,
}

const LOSSES: [Loss; 3] = [Loss::Nothing, Loss::Some, Loss::All];

/// A receiver that cuts every connection. What came of requests is noted.
async fn cutting(loss: Loss) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let noted = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            match loss {
                Loss::Nothing => {}
                Loss::Some => {
                    stream.read_exact(&mut [0; 1024]).await.unwrap();
                    stream.set_zero_linger().unwrap();
                }
                Loss::All => {
                    let request = whole_request(&mut stream).await;
                    noted.lock().unwrap().push(request);
                }
            }
        }
    });
    (addr, heard)
}

/// A request's body.
fn body(request: &[u8]) -> &[u8] {
    let head = memchr::memmem::find(request, b"\r\n\r\n").expect("a head ends");
    &request[head + 4..]
}

#[tokio::test]
async fn after_a_cut_anywhere_and_a_restart_the_same_batch_comes_under_the_same_ids() {
    for subject in &SINKS {
        for loss in LOSSES {
            let place = format!("{} {loss:?}", subject.name);
            let job = (subject.job)(0..500);
            let (addr, heard) = cutting(loss).await;
            let outcome = deliver(&*subject.at(addr), &job, LATER).await;
            assert_eq!(Class::of(&outcome), Class::Retry, "{place}: {outcome:?}");

            let (addr, received) = serve(|_| Response::new(Full::default())).await;
            assert_eq!(deliver(&*subject.at(addr), &job, LATER).await, Outcome::Delivered, "{place}");
            same_ids(subject, &job, &received);
            let heard = heard.lock().unwrap();
            assert_eq!(heard.is_empty(), loss != Loss::All, "{place}");
            let again = received.lock().unwrap();
            assert!(
                heard.iter().all(|request| body(request) == &again[again.len() - 1].1[..]),
                "{place}: the same bytes"
            );
        }
    }
}

/// By their offsets. A power cut may leave whole lines of a batch behind holes: they stay where they are, since nobody can
/// tell them from delivered ones, and what was in the holes comes behind them.
fn each(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_by_key(|id| id.rsplit('-').next().and_then(|offset| offset.parse::<u64>().ok()));
    ids
}

/// The same where the receiver is a disk: its call fails, or the power does, in the middle of it.
#[tokio::test]
async fn after_a_failed_disk_anywhere_and_a_restart_each_line_stands_once_under_its_id() {
    let faults = [
        Fault::every(OpKind::MakeDir, Failure::Eio),
        Fault::every(OpKind::Create, Failure::NoSpace),
        Fault::every(OpKind::Write, Failure::NoSpace),
        Fault::every(OpKind::Write, Failure::ShortWrite),
        Fault::every(OpKind::Sync, Failure::Eio),
        Fault::every(OpKind::SyncDir, Failure::Eio),
    ];
    for cut in [None, Some(PowerCut::NothingUnsynced), Some(PowerCut::Everything), Some(PowerCut::RandomSubset)] {
        for fault in &faults {
            let (files, job) = (Files::new(), job(0..500));
            eprintln!("{fault:?}, {cut:?}");
            files.disk.inject(fault.clone());
            let outcome = deliver(&files.sink(), &job, LATER).await;
            assert_eq!(Class::of(&outcome), Class::Retry, "{fault:?}: {outcome:?}");
            files.disk.clear_faults();
            cut.into_iter().for_each(|cut| files.disk.power_cut(cut));
            assert_eq!(deliver(&files.sink(), &job, LATER).await, Outcome::Delivered, "{fault:?} {cut:?}");
            assert_eq!(each(files.ids()), record_ids(&job), "{fault:?} {cut:?}");
        }
    }
    let changes = {
        let files = Files::new();
        assert_eq!(deliver(&files.sink(), &job(0..500), LATER).await, Outcome::Delivered);
        files.disk.ops()
    };
    assert!(changes > 3, "{changes}: a directory, a file, its bytes, their syncs");
    for change in 0..changes {
        for performed in [Performed::Nothing, Performed::Bytes(700), Performed::All] {
            for cut in [PowerCut::NothingUnsynced, PowerCut::Everything, PowerCut::RandomSubset] {
                eprintln!("change {change}, {performed:?}, {cut:?}");
                let (files, job) = (Files::new(), job(0..500));
                files.disk.crash_at(change, performed);
                let outcome = deliver(&files.sink(), &job, LATER).await;
                assert!(files.disk.crashed(), "change {change}");
                assert_ne!(outcome, Outcome::Delivered, "change {change}, {performed:?}: nobody was told");
                files.disk.power_cut(cut);
                assert_eq!(deliver(&files.sink(), &job, LATER).await, Outcome::Delivered);
                assert_eq!(each(files.ids()), record_ids(&job), "change {change}, {performed:?}, {cut:?}");
            }
        }
    }
}

/// Before: the cut of a file whose sync had failed was not synced itself, so that a power cut could bring back, behind it,
/// lines that stood in the next file by then. And where blocks of the last write were missing, the torn line between them
/// stayed in the file.
#[tokio::test]
async fn what_a_failed_sync_let_through_never_stands_beside_what_was_written_again() {
    for seed in 0..40 {
        let files = Files::seeded(seed);
        let sink = files.sink();
        assert_eq!(deliver(&sink, &job(0..100), LATER).await, Outcome::Delivered);
        let failure = [Failure::Eio, Failure::NoSpace][seed as usize % 2];
        files.disk.inject(Fault::nths(OpKind::Sync, 0..1 + seed % 3, failure));
        let outcome = deliver(&sink, &job(100..400), LATER).await;
        assert_eq!(Class::of(&outcome), Class::Retry, "{outcome:?}");
        files.disk.clear_faults();
        if seed % 4 < 2 {
            assert_eq!(deliver(&sink, &job(100..400), LATER).await, Outcome::Delivered);
        }
        files
            .disk
            .power_cut([PowerCut::RandomSubset, PowerCut::NothingUnsynced, PowerCut::Everything][seed as usize % 3]);
        assert_eq!(deliver(&files.sink(), &job(100..400), LATER).await, Outcome::Delivered);
        // A file that could not be cut for certain is set aside, with what was delivered before.
        assert_eq!(each(files.ids()), record_ids(&job(0..400)), "seed {seed}");
        // Nor does it when the floor knew of nothing, and all of it comes again.
        assert_eq!(deliver(&files.sink(), &job(0..400), LATER).await, Outcome::Delivered);
        assert_eq!(each(files.ids()), record_ids(&job(0..400)), "seed {seed}");
    }
}
