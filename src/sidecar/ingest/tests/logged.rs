//! What the operator reads in the log of what came in and could not be kept as it was meant.

use super::harness::{impressions, post, start};
use super::relayed::relayed;
use crate::logged::Lines;

#[tokio::test]
async fn an_unknown_key_has_a_line_that_names_the_sdk_and_not_the_key() {
    let (lines, _guard) = Lines::collect();
    let server = start().await;
    let headers = [("Authorization", "Bearer canary"), ("SplitSDKVersion", "go-6.8.1")];
    for _ in 0..3 {
        assert_eq!(server.send(post("/api/testImpressions/bulk", &headers, impressions(1))).await.status, 401);
    }
    let said = lines.with("(401)");
    assert_eq!(said.len(), 1, "one line a minute: {said:?}");
    assert!(said[0].contains("go-6.8.1") && said[0].contains("sdk_keys"), "{said:?}");
    assert!(lines.with("canary").is_empty());
}

#[tokio::test]
async fn whose_other_posts_are_dropped_is_said_once_at_the_start() {
    let (lines, _guard) = Lines::collect();
    let servers = [start().await, relayed().await.server];
    for (server, names) in
        servers.iter().zip(["environments=2 first=\"prod, staging\"", "environments=1 first=\"staging\""])
    {
        for _ in 0..2 {
            assert_eq!(
                server.send(post("/api/events/bulk", &[("Authorization", "Bearer staging-key")], "[]")).await.status,
                202
            );
        }
        let said = lines.with("are answered with 202 and dropped").into_iter().filter(|line| line.contains(names));
        assert_eq!(said.count(), 1, "{names}");
    }
    assert_eq!(lines.with("are answered with 202 and dropped").len(), 2);
}

#[tokio::test]
async fn elements_that_were_set_aside_have_a_line_with_the_reason_and_where_they_are() {
    let (lines, _guard) = Lines::collect();
    let server = start().await;
    for _ in 0..3 {
        assert_eq!(server.bulk(r#"[{"f":"flag","i":[{"t":"canary","m":2},"canary"]}]"#).await.status, 200);
    }
    let said = lines.with("!rejects/prod");
    assert_eq!(said.len(), 1, "one line a minute: {said:?}");
    assert!(said[0].contains("elements=2") && said[0].contains("reason="), "{said:?}");
    assert!(
        server.bulk(r#"["canary","#).await.status == 400 && lines.with("a body was refused").len() == 1,
        "another cause"
    );
    assert!(lines.with("canary").is_empty(), "no part of a record");
}
