//! The others' patience with a batch that is read as it is sent: it runs out when they have waited for long for the memory
//! that the batch holds. Whoever sends it then ends it as if it had failed; it comes again where it keeps nobody waiting.

use std::time::Duration;

use tokio::sync::watch;

/// Others wait for so long, all in all, for what one batch holds: more than any large object takes that goes as fast as
/// networks go, and less than anybody notices.
pub(super) const OTHERS_WAIT_MAX: Duration = Duration::from_secs(60);

/// The others' patience with one batch. Endless by default. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Patience(Option<watch::Receiver<bool>>);

/// Lets it run out.
#[derive(Debug)]
pub struct Hurry(watch::Sender<bool>);

impl Patience {
    /// One that runs out when somebody says so.
    #[must_use]
    pub fn new() -> (Hurry, Self) {
        let (hurry, patience) = watch::channel(false);
        (Hurry(hurry), Self(Some(patience)))
    }

    /// Waits until it runs out: mostly for ever.
    pub async fn out(&self) {
        if let Some(patience) = &self.0
            && patience.clone().wait_for(|out| *out).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

impl Hurry {
    /// It has run out.
    pub fn now(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn it_runs_out_when_somebody_says_so_and_never_by_itself() {
        let is_out = async |patience: &Patience| timeout(Duration::from_secs(3600), patience.out()).await.is_ok();
        let (hurry, patience) = Patience::new();
        assert!(!is_out(&patience).await && !is_out(&Patience::default()).await);
        hurry.now();
        assert!(is_out(&patience.clone()).await);
        let (hurry, patience) = Patience::new();
        drop(hurry);
        assert!(!is_out(&patience).await, "nobody is left who could wait");
    }
}
