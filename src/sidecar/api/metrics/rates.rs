//! How fast destinations are sent to, and what their next request waits for.

use crate::api::exposition::{Exposition, Kind};
use crate::api::lag::Reading;
use crate::api::readings::{RateReading, WaitsFor};

pub(super) fn render(page: &mut Exposition, reading: &Reading) {
    let help =
        "What the destination is sent a second, at most: as its settings allow, and as was learned of what it takes.";
    let mut limits = page.family("forebay_delivery_rate_limit", Kind::Gauge, help);
    for (destination, delivery) in &reading.deliveries {
        let RateReading { allowed_requests, allowed_records, allowed_bytes, learned_requests, learned_records } =
            delivery.rate;
        let all = [
            ("allowed", "requests", allowed_requests.map(f64::from)),
            ("allowed", "records", allowed_records.map(f64::from)),
            ("allowed", "bytes", allowed_bytes.map(|bytes| bytes as f64)),
            ("learned", "requests", learned_requests),
            ("learned", "records", learned_records),
        ];
        for (by, of, limit) in all {
            if let Some(limit) = limit {
                limits.sample(&[("destination", destination), ("by", by), ("of", of)], limit);
            }
        }
    }
    let help = "1 for what the destination's next request waits for, where nothing failed.";
    let mut waits = page.family("forebay_delivery_waits", Kind::Gauge, help);
    for (destination, delivery) in &reading.deliveries {
        let what = match delivery.waits_for {
            WaitsFor::Nothing => continue,
            WaitsFor::Answers => "answers",
            WaitsFor::Share => "share",
            WaitsFor::AllowedRate => "allowed_rate",
            WaitsFor::LearnedRate => "learned_rate",
            WaitsFor::Reset => "reset",
        };
        waits.sample(&[("destination", destination), ("for", what)], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::readings::DeliveryReading;
    use std::sync::Arc;

    #[test]
    fn limits_are_shown_by_who_says_so_and_none_where_there_is_none() {
        let rate = RateReading { allowed_records: Some(500), learned_requests: Some(2.5), ..RateReading::default() };
        let limited = DeliveryReading { rate, waits_for: WaitsFor::LearnedRate, ..DeliveryReading::default() };
        let mut reading = Reading::default();
        reading.deliveries.insert("hook".into(), Arc::new(limited));
        reading.deliveries.insert("free".into(), Arc::default());
        let mut page = Exposition::default();
        render(&mut page, &reading);
        let text = page.into_text();
        for line in [
            "forebay_delivery_rate_limit{destination=\"hook\",by=\"allowed\",of=\"records\"} 500",
            "forebay_delivery_rate_limit{destination=\"hook\",by=\"learned\",of=\"requests\"} 2.5",
            "forebay_delivery_waits{destination=\"hook\",for=\"learned_rate\"} 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
        assert!(!text.contains("free"), "{text}");
    }
}
