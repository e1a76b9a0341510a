//! The usual way from what SDKs post to Split's objects: serde, into structs that borrow and out of them.

use std::borrow::Cow;

use forebay_sidecar::impression::EnvironmentLabel;
use serde::{Deserialize, Serialize};

/// The impressions of one flag, in what an SDK posts.
#[derive(Deserialize)]
pub(crate) struct Group<'a> {
    #[serde(borrow)]
    pub(crate) f: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) i: Vec<Impression<'a>>,
}

/// One of them.
#[derive(Deserialize)]
pub(crate) struct Impression<'a> {
    #[serde(borrow)]
    k: Cow<'a, str>,
    #[serde(borrow)]
    t: Cow<'a, str>,
    m: i64,
    c: Option<i64>,
    #[serde(borrow)]
    r: Option<Cow<'a, str>>,
    #[serde(borrow)]
    b: Option<Cow<'a, str>>,
    #[serde(borrow)]
    properties: Option<Cow<'a, str>>,
}

/// Split's object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SplitObject<'a> {
    key: &'a str,
    split: &'a str,
    environment_id: &'a str,
    environment_name: &'a str,
    treatment: &'a str,
    time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucketing_key: Option<&'a str>,
    label: Option<&'a str>,
    machine_name: &'a str,
    machine_ip: &'a str,
    split_version_number: Option<i64>,
    sdk: &'a str,
    sdk_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<&'a str>,
}

/// What a webhook gets for one impression.
pub(crate) fn split_object<'a>(
    flag: &'a str,
    impression: &'a Impression<'_>,
    environment: &EnvironmentLabel<'a>,
) -> SplitObject<'a> {
    SplitObject {
        key: &impression.k,
        split: flag,
        environment_id: environment.id,
        environment_name: environment.name,
        treatment: &impression.t,
        time: impression.m,
        bucketing_key: impression.b.as_deref(),
        label: impression.r.as_deref(),
        machine_name: "web-1",
        machine_ip: "10.1.2.3",
        split_version_number: impression.c,
        sdk: "nodejs",
        sdk_version: "11.11.2",
        properties: impression.properties.as_deref(),
    }
}
