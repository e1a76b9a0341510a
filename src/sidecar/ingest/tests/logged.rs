//! What the operator reads in the log of what came in and could not be kept as it was meant.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;

use super::harness::{impressions, post, start};

/// The lines that this thread logs while the guard lives.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn collect() -> (Self, DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// Those that hold `part`.
    fn with(&self, part: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_unknown_key_has_a_line_that_names_the_sdk_and_not_the_key() {
    let (lines, _guard) = Lines::collect();
    let server = start().await;
    let headers = [("Authorization", "Bearer canary"), ("SplitSDKVersion", "go-6.8.1")];
    for _ in 0..3 {
        assert_eq!(server.send(post("/api/testImpressions/bulk", &headers, impressions(1))).await.status, 401);
    }
    let said = lines.with("401");
    assert_eq!(said.len(), 1, "one line a minute: {said:?}");
    assert!(said[0].contains("go-6.8.1") && said[0].contains("sdk_keys"), "{said:?}");
    assert!(lines.with("canary").is_empty());
}

#[tokio::test]
async fn elements_that_were_set_aside_have_a_line_with_the_reason_and_where_they_are() {
    let (lines, _guard) = Lines::collect();
    let server = start().await;
    for _ in 0..3 {
        assert_eq!(server.bulk(r#"[{"f":"flag","i":[{"t":"on","m":2},7]}]"#).await.status, 200);
    }
    let said = lines.with("!rejects/prod");
    assert_eq!(said.len(), 1, "one line a minute: {said:?}");
    assert!(said[0].contains("elements=2") && said[0].contains("reason="), "{said:?}");
    assert!(server.bulk("[").await.status == 400 && lines.with("a body was refused").len() == 1, "another cause");
}
