//! Filters against records that went through the real parser, and against what their texts stand for.

use proptest::prelude::*;

use super::*;
use crate::delivery::sink::Job;
use crate::impression::escape;
use crate::sinks::sample::{job, job_of};

fn spec(flags: &[&str], treatments: &[&str], labels: &[&str]) -> FilterSpec {
    let patterns = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
    FilterSpec { flags: patterns(flags), treatments: patterns(treatments), labels: patterns(labels) }
}

fn filtered(spec: &FilterSpec, job: &Job) -> Vec<Range<u64>> {
    Filter::new(spec).unwrap().filtered(job.runs())
}

/// Two flags, then one whose name is spelled with an escape; offsets 100 to 106.
const BULK: &str = r#"[
    {"f":"exp_new","i":[{"k":"a","t":"on","r":"default rule"},{"k":"b","t":"off"},{"k":"c","t":"control","r":"not ready"}]},
    {"f":"exp_internal","i":[{"k":"a","t":"on","r":"default rule"},{"k":"b"}]},
    {"f":"\u0065xp_caf\u00e9","i":[{"k":"a","t":"o\u006e","r":"in segment \"all\""},{"k":"b","t":"","r":"x"}]}]"#;

#[test]
fn of_each_list_a_record_needs_one_that_is_wanted_and_none_that_is_not() {
    let job = job_of(BULK);
    let left_out = |flags: &[&str], treatments: &[&str], labels: &[&str]| {
        filtered(&spec(flags, treatments, labels), &job).into_iter().flatten().collect::<Vec<u64>>()
    };
    assert_eq!(left_out(&["exp_new"], &[], &[]), [103, 104, 105, 106]);
    assert_eq!(left_out(&["exp_*", "!exp_internal"], &[], &[]), [103, 104]);
    assert_eq!(left_out(&["!exp_n*"], &[], &[]), [100, 101, 102]);
    assert_eq!(left_out(&["exp_café", "exp_internal"], &[], &[]), [100, 101, 102]);
    assert_eq!(left_out(&["exp_caf*"], &["on"], &[]), [100, 101, 102, 103, 104, 106]);
    assert_eq!(left_out(&[], &["!control", "!off"], &[]), [101, 102]);
    assert_eq!(left_out(&[], &[], &["in segment \"*"]), [100, 101, 102, 103, 104, 106]);
    assert_eq!(left_out(&[], &[""], &[]), [100, 101, 102, 103, 105], "what was not given is the empty text");
    assert_eq!(left_out(&["*"], &["*"], &["*"]), Vec::<u64>::new());
    assert_eq!(left_out(&["!*"], &[], &[]), [100, 101, 102, 103, 104, 105, 106]);
}

#[test]
fn what_is_left_out_lies_in_ranges_over_the_borders_of_stored_batches() {
    // Ten records a stored batch; what is excepted already is not looked at.
    let job = Job { except: [17, 25].into(), ..job(8..33) };
    assert_eq!(filtered(&spec(&["other"], &[], &[]), &job), [8..17, 18..25, 26..33]);
}

#[test]
fn an_empty_filter_is_none_and_records_that_cannot_be_read_pass() {
    assert_eq!(Filter::new(&FilterSpec::default()), None);
    // Before, their batch came first for ever, and nothing behind it was ever sent.
    let mut job = job(0..30);
    job.parts[0].take = 11;
    job.parts[1].payload = bytes::Bytes::from_static(b"\xff");
    (job.parts[1].first, job.parts[2].first) = (11, 21);
    assert_eq!(filtered(&spec(&["other"], &[], &[]), &job), [0..10, 21..31]);
}

#[test]
fn a_batch_is_filtered_as_when_it_was_planned() {
    let (old, new) = (spec(&["a"], &[], &[]), spec(&["b"], &[], &[]));
    let filters = Filters::default();
    assert!(filters.at(7).is_none() && !filters.any());
    filters.set(3, &old);
    filters.set(5, &new);
    filters.set(9, &FilterSpec::default());
    let at = |revision| filters.at(revision).map(|filter| filter.flags.wanted[0].text.to_string());
    assert_eq!((at(2), at(3), at(4)), (None, Some("a".into()), Some("a".into())));
    assert_eq!((at(5), at(8), at(9), at(100)), (Some("b".into()), Some("b".into()), None, None));
    assert!(filters.any());
    assert_eq!(Filters::of(&new).at(17).map(|filter| (*filter).passes(&Impression::default())), Some(false));
}

proptest! {
    #[test]
    fn a_pattern_meets_what_it_says_however_the_text_is_spelled(
        plain in "[abé\"\n]{0,4}",
        word in "[abé\"\n]{0,3}",
        as_units: bool,
        prefix: bool,
    ) {
        let mut spelled = Vec::new();
        if as_units {
            let units = plain.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            spelled.extend(units.collect::<String>().into_bytes());
        } else {
            escape(plain.as_bytes(), &mut spelled);
        }
        let meets = Word { text: word.as_str().into(), prefix }.meets(JsonText::checked(&spelled));
        prop_assert_eq!(meets, if prefix { plain.starts_with(&word) } else { plain == word });
    }
}
