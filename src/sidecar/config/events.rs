//! What event services (Amplitude, Segment) are told: keys, regions, and what an impression becomes there.

use super::{Endpoint, Secret};

/// What Split's own integrations call an impression.
pub const EVENT_NAME: &str = "get_treatment";

/// Where a service keeps its data. Data sent to the wrong region is lost on their side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Region {
    /// The United States.
    #[default]
    Us,
    /// The European Union.
    Eu,
}

/// Events to Amplitude.
#[derive(Debug, Clone, Hash)]
pub struct AmplitudeConfig {
    /// The project's key.
    pub api_key: Secret<String>,
    /// Which of the ways in.
    pub api: AmplitudeApi,
    /// Where the project lives.
    pub region: Region,
    /// Another address than that of the API and the region.
    pub endpoint: Option<Endpoint>,
    /// What an impression is called there.
    pub event_type: String,
    /// What an impression's key is there.
    pub identity: AmplitudeIdentity,
    /// Amplitude takes no shorter ids. Its own default is 5, and keys may be shorter.
    pub min_id_length: u32,
}

impl AmplitudeConfig {
    /// The defaults.
    #[must_use]
    pub fn new(api_key: impl Into<String>) -> Self {
        Self {
            api_key: Secret::new(api_key.into()),
            api: AmplitudeApi::default(),
            region: Region::default(),
            endpoint: None,
            event_type: EVENT_NAME.to_owned(),
            identity: AmplitudeIdentity::default(),
            min_id_length: super::limits::AMPLITUDE_MIN_ID_LENGTH.default,
        }
    }

    /// Where to post.
    #[must_use]
    pub fn url(&self) -> Endpoint {
        let known = match (self.region, self.api) {
            (Region::Us, AmplitudeApi::Batch) => "https://api2.amplitude.com/batch",
            (Region::Us, AmplitudeApi::HttpV2) => "https://api2.amplitude.com/2/httpapi",
            (Region::Eu, AmplitudeApi::Batch) => "https://api.eu.amplitude.com/batch",
            (Region::Eu, AmplitudeApi::HttpV2) => "https://api.eu.amplitude.com/2/httpapi",
        };
        own_or_known(self.endpoint.as_ref(), known)
    }
}

/// Amplitude's ways in for events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AmplitudeApi {
    /// Large requests, 1,000 events a second of one user, seen a little later.
    #[default]
    Batch,
    /// Small requests, 30 events a second of one user, seen at once.
    HttpV2,
}

/// What an impression's key is at Amplitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AmplitudeIdentity {
    /// The user.
    #[default]
    UserId,
    /// The device.
    DeviceId,
}

/// Events to Segment.
#[derive(Debug, Clone, Hash)]
pub struct SegmentConfig {
    /// The source's key.
    pub write_key: Secret<String>,
    /// Where the workspace lives.
    pub region: Region,
    /// Another address than the region's.
    pub endpoint: Option<Endpoint>,
    /// What an impression is called there.
    pub event: String,
    /// What an impression's key is there.
    pub identity: SegmentIdentity,
}

impl SegmentConfig {
    /// The defaults.
    #[must_use]
    pub fn new(write_key: impl Into<String>) -> Self {
        Self {
            write_key: Secret::new(write_key.into()),
            region: Region::default(),
            endpoint: None,
            event: EVENT_NAME.to_owned(),
            identity: SegmentIdentity::default(),
        }
    }

    /// Where to post.
    #[must_use]
    pub fn url(&self) -> Endpoint {
        let known = match self.region {
            Region::Us => "https://api.segment.io/v1/batch",
            Region::Eu => "https://events.eu1.segmentapis.com/v1/batch",
        };
        own_or_known(self.endpoint.as_ref(), known)
    }
}

/// What an impression's key is at Segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SegmentIdentity {
    /// Somebody known.
    #[default]
    UserId,
    /// Somebody who is not known yet.
    AnonymousId,
}

fn own_or_known(own: Option<&Endpoint>, known: &str) -> Endpoint {
    own.cloned().unwrap_or_else(|| Endpoint::parse(known).expect("the services' addresses are addresses"))
}
