//! Statuses, pauses that are asked for, and that a repeat has the same ids whatever the answer was.

use std::time::Duration;

use http_body_util::Full;
use hyper::Response;

use super::Class::{Delivered, QueueRefused, Refused, Rejected, Retry, Throttled, TooLarge};
use super::{Class, LATER, SINKS, deliver, same_ids};
use crate::delivery::outcome::Outcome;
use crate::sinks::receiver::serve;

/// Statuses, and what the webhook, Amplitude, Segment, S3 and an upstream make of them.
pub(super) const STATUSES: [(u16, [Class; 5]); 29] = [
    (200, [Delivered, Delivered, Delivered, Delivered, Delivered]),
    (201, [Delivered, Retry, Delivered, Delivered, Delivered]),
    (202, [Delivered, Retry, Delivered, Delivered, Delivered]),
    (204, [Delivered, Retry, Delivered, Delivered, Delivered]),
    (301, [Retry, Retry, Retry, Refused, Retry]),
    (302, [Retry, Retry, Retry, Retry, Retry]),
    (303, [Retry, Retry, Retry, Retry, Retry]),
    (304, [Retry, Retry, Retry, Retry, Retry]),
    (307, [Retry, Retry, Retry, Refused, Retry]),
    (308, [Retry, Retry, Retry, Refused, Retry]),
    (400, [Rejected, Rejected, Rejected, Retry, Rejected]),
    (401, [Refused, Refused, Refused, Refused, QueueRefused]),
    (403, [Refused, Refused, Refused, Refused, QueueRefused]),
    (404, [Refused, Refused, Refused, Retry, Refused]),
    (405, [Retry, Retry, Retry, Retry, Refused]),
    (408, [Retry, Retry, Retry, Retry, Retry]),
    (409, [Retry, Retry, Retry, Retry, Retry]),
    (410, [Refused, Retry, Retry, Retry, Refused]),
    (413, [TooLarge, TooLarge, TooLarge, Retry, Rejected]),
    (415, [Rejected, Retry, Retry, Retry, Rejected]),
    (422, [Rejected, Retry, Retry, Retry, Rejected]),
    (429, [Throttled, Throttled, Throttled, Throttled, Throttled]),
    (460, [Retry, Retry, Retry, Retry, Rejected]),
    (500, [Retry, Retry, Retry, Retry, Retry]),
    (501, [Retry, Retry, Retry, Retry, Retry]),
    (502, [Retry, Retry, Retry, Retry, Retry]),
    (503, [Throttled, Throttled, Throttled, Throttled, Throttled]),
    (504, [Retry, Retry, Retry, Retry, Retry]),
    (599, [Retry, Retry, Retry, Retry, Retry]),
];

#[tokio::test]
async fn each_status_has_its_meaning_and_a_repeat_has_the_same_ids() {
    for (column, subject) in SINKS.iter().enumerate() {
        for (status, classes) in STATUSES {
            // To itself: who followed a redirect would be seen twice.
            let (addr, received) = serve(move |n| {
                let status = if n == 0 { status } else { 200 };
                Response::builder().status(status).header("location", "/in").body(Full::default()).unwrap()
            })
            .await;
            let (mut sink, job) = (subject.at(addr), (subject.job)(8..23));
            let outcome = deliver(&*sink, &job, LATER).await;
            if classes[column] == TooLarge {
                // It would know beforehand.
                sink = subject.at(addr);
            }
            assert_eq!(Class::of(&outcome), classes[column], "{} {status}: {outcome:?}", subject.name);
            assert_eq!(received.lock().unwrap().len(), 1, "{} {status}: one request an attempt", subject.name);
            assert_eq!(deliver(&*sink, &job, LATER).await, Outcome::Delivered, "{} {status}", subject.name);
            same_ids(subject, &job, &received);
        }
    }
}

#[tokio::test]
async fn retry_after_is_read_in_all_its_forms() {
    let seconds = Duration::from_secs;
    let forms = [
        ("0", Some(seconds(0))),
        ("120", Some(seconds(120))),
        ("99999999999999999999", Some(seconds(86_400))),
        ("Sun, 06 Nov 1994 09:50:37 GMT", Some(seconds(60))),
        ("Sun, 06 Nov 1994 00:00:00 GMT", Some(seconds(0))),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ];
    for subject in &SINKS {
        for status in [429, 503, 500, 400, 401, 403, 404, 410, 413, 415, 420, 422, 301] {
            for (text, asked) in forms {
                // This receiver believes that it is an hour later than we do.
                let (addr, _) = serve(move |_| {
                    let answer = Response::builder().status(status).header("date", "Sun, 06 Nov 1994 09:49:37 GMT");
                    answer.header("retry-after", text).body(Full::default()).unwrap()
                })
                .await;
                let outcome = deliver(&*subject.at(addr), &(subject.job)(0..3), LATER).await;
                let place = format!("{} {status} {text:?}", subject.name);
                match (&outcome, asked) {
                    (Outcome::Throttled { retry_after, .. }, Some(_)) => assert_eq!(*retry_after, asked, "{place}"),
                    (Outcome::Throttled { retry_after, .. }, None) if status == 429 => {
                        assert_eq!(*retry_after, subject.unasked_pause, "{place}");
                    }
                    (Outcome::Throttled { retry_after: None, .. }, None) => assert_eq!(status, 503, "{place}"),
                    (Outcome::Throttled { .. }, _) => panic!("{place}: {outcome:?}"),
                    (Outcome::Retry { .. }, None) if status == 500 => {}
                    // Without a time that can be read it is what the status says.
                    (_, None) => assert!((300..500).contains(&status) && status != 429, "{place}: {outcome:?}"),
                    _ => panic!("{place}: {outcome:?}"),
                }
            }
        }
    }
}
