//! How the sidecar is told to stop: once gently, the second time at once.
//!
//! The first SIGTERM or SIGINT asks every [`Shutdown`] to finish what it does; the second ends the process on the
//! spot with 128 + the signal's number (143, 130). What was acknowledged is on disk either way: a gentle stop only
//! spares the repeats. Does not wait for anyone and knows no grace period: that is `app`.

use std::convert::Infallible;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

/// A way to stop, and the way to hear of it.
#[must_use]
pub fn channel() -> (Stop, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stop(sender), Shutdown(receiver))
}

/// Tells every [`Shutdown`] to stop. Dropped unused it does so too: nobody would be left to say it.
#[derive(Debug)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    /// Tells them. Again: does nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Hears of the stop. Clones hear it alike, those made afterwards too.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Returns when it is time to stop. Cancel safe.
    pub async fn requested(&self) {
        // An error says that the Stop is gone, which stands for a stop.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }

    /// Whether it is time to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// The signals that ask for a stop. From the moment this exists they no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over. Within a tokio runtime, before anything starts that has to be stopped gently.
    ///
    /// # Errors
    /// Those of the operating system.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Obeys them for as long as the process lives: the first one stops gently, the second ends it.
    pub async fn obey(mut self, stop: Stop) -> Infallible {
        let (name, _) = self.next().await;
        info!("{name}: stopping; what is in flight gets its time, a second signal ends it at once");
        stop.stop();
        let (name, code) = self.next().await;
        warn!("{name} again: ending now; requests in flight are repeated at the next start");
        std::process::exit(code)
    }

    /// The next signal's name, and the code that a process which it ended exits with.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => ("SIGINT", 128 + SignalKind::interrupt().as_raw_value()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    #[tokio::test]
    async fn every_clone_hears_of_the_stop() {
        let (stop, shutdown) = channel();
        let early = shutdown.clone();
        assert!(!shutdown.is_requested());
        let waits = tokio::spawn(async move { early.requested().await });
        stop.stop();
        stop.stop();
        waits.await.expect("it ends");
        assert!(shutdown.is_requested() && shutdown.clone().is_requested());
        shutdown.requested().await;
    }

    #[tokio::test]
    async fn a_stop_that_is_gone_counts_as_a_stop() {
        let (stop, shutdown) = channel();
        drop(stop);
        assert!(shutdown.is_requested());
        shutdown.requested().await;
    }

    const PLAY: &str = "FOREBAY_TEST_PLAY_THE_PROCESS";

    /// The process of the test below, which starts it in a process of its own. Without being told to play, nothing.
    #[test]
    fn the_process() {
        if std::env::var_os(PLAY).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("builds");
        runtime.block_on(async {
            let (stop, shutdown) = channel();
            let signals = Signals::install().expect("installs");
            tokio::spawn(signals.obey(stop));
            println!("ready");
            shutdown.requested().await;
            println!("stopping");
            tokio::time::sleep(Duration::from_secs(60)).await;
        });
    }

    #[test]
    fn the_first_signal_stops_and_the_second_ends() {
        for (first, second, code) in [("TERM", "TERM", 143), ("INT", "INT", 130), ("INT", "TERM", 143)] {
            let mut process = Command::new(std::env::current_exe().expect("this test has a path"))
                .args(["--exact", "shutdown::tests::the_process", "--nocapture"])
                .env(PLAY, "1")
                .stdout(Stdio::piped())
                .spawn()
                .expect("starts");
            let mut lines =
                BufReader::new(process.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
            let kill = format!("kill -{first} {}", process.id());
            assert!(lines.any(|line| line.ends_with("ready")), "it takes the signals over");
            assert!(Command::new("sh").args(["-c", &kill]).status().expect("sends").success());
            assert!(lines.any(|line| line.ends_with("stopping")), "{first} stops it gently");
            let kill = format!("kill -{second} {}", process.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().expect("sends").success());
            assert_eq!(process.wait().expect("ends").code(), Some(code), "{first}, then {second}");
        }
    }
}
