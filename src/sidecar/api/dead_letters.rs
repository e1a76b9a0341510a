//! The service `forebay.v1.DeadLetters`: shows dead letters, sends them again, lets them go.
//!
//! Decides nothing about letters. What always holds: nothing that an operator did not ask for by name, by filter or as
//! `all` is touched; every call is a bounded stretch of work on a thread that may block, one at a time.

use std::sync::Arc;

use forebay::{Count, Settled};
use tonic::{Code, Request, Response, Status};

use super::limits;
use super::turns::Turns;
use crate::impression::{EnvironmentLabel, StoredBatch, write_json_lines};
use crate::letters::{Desk, Filter, Letters, MARKED_REASON, MarkedLetters, Ranges, Shelf, Shown, Step, SweepError};
use crate::post::Post;
use crate::proto::v1::count_dead_letters_response::Destination;
use crate::proto::v1::dead_letter::Post as PostLetter;
use crate::proto::v1::dead_letters_server::DeadLetters;
use crate::proto::v1::{
    CountDeadLettersRequest, CountDeadLettersResponse, DeadLetter, DeadLetterFilter, ListDeadLettersRequest,
    ListDeadLettersResponse, MarkedRange, PurgeDeadLettersRequest, PurgeDeadLettersResponse, RedriveDeadLettersRequest,
    RedriveDeadLettersResponse, ShowDeadLetterRequest, ShowDeadLetterResponse,
};

/// Of a post's body so much is shown.
const BODY_CHARS_MAX: usize = 2_000;

/// The service.
pub(super) struct DeadLettersService {
    letters: Arc<Letters>,
    /// One stretch of work at a time: operators wait for each other, not the disk for all of them.
    turns: Turns,
}

impl DeadLettersService {
    pub(super) fn new(letters: Arc<Letters>) -> Self {
        Self { letters, turns: Turns::of(1) }
    }

    /// Does a stretch of work at a destination's desk; nothing where it has no letters.
    async fn at<T: Default + Send + 'static>(
        &self,
        destination: &str,
        work: impl FnOnce(&Desk) -> Result<T, SweepError> + Send + 'static,
    ) -> Result<T, Status> {
        if destination.is_empty() {
            return Err(Status::invalid_argument(
                "destination is needed: `forebay dead-letters list` shows which have letters",
            ));
        }
        let (letters, destination) = (Arc::clone(&self.letters), destination.to_owned());
        // Once it is its turn: the destination may have been deleted, and made again, while it waited.
        let at_desk = move || {
            if letters.is_unread(&destination)
                && let Err(error) = letters.read(&destination)
            {
                let why = crate::causes::line(&*error);
                return Err(Status::unavailable(format!("the letters of {destination} can't be read: {why}")));
            }
            let known = letters.desks().into_iter().find(|desk| desk.destination() == destination);
            // What was given up where it lies makes no desk.
            let known = known.or_else(|| letters.marks(&destination).then(|| letters.desk(destination.as_str())));
            if let Some(desk) = known {
                let worked = work(&desk);
                return worked.map_err(|error| Status::new(Code::Unavailable, crate::causes::line(&error)));
            }
            // Nothing of a desk is made for being asked about.
            if letters.knows(&destination) {
                return Ok(T::default());
            }
            Err(Status::not_found(format!(
                "there is no destination {destination}: `forebay dead-letters list` shows which have letters"
            )))
        };
        self.turns.take(at_desk).await?
    }
}

#[tonic::async_trait]
impl DeadLetters for DeadLettersService {
    async fn count_dead_letters(
        &self,
        request: Request<CountDeadLettersRequest>,
    ) -> Result<Response<CountDeadLettersResponse>, Status> {
        let wanted = request.into_inner().destination;
        let counts = self.letters.dead().into_iter();
        let counts = counts.filter(|(destination, _)| wanted.is_empty() || **destination == *wanted);
        let shown = |(destination, Count { records, bytes }): (Arc<str>, Count)| {
            let destination = destination.to_string();
            Destination { destination, records, bytes }
        };
        Ok(Response::new(CountDeadLettersResponse { destinations: counts.map(shown).collect() }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let (filter, from) = (filter(request.filter)?, place(&request.page_token)?);
        let most = match request.page_size {
            0 => limits::LETTERS_DEFAULT,
            most => most.min(limits::LETTERS_MAX),
        };
        let first = request.page_token.is_empty();
        let list = move |desk: &Desk| {
            let ranges = if first { desk.marked(&filter) } else { Vec::new() };
            Ok((desk.list(&filter, from, most as usize)?, ranges))
        };
        let (page, ranges) = self.at(&request.destination, list).await?;
        let letters = page.letters.iter().map(|shown| letter(shown, post(shown).as_ref())).collect();
        let ranges = ranges.into_iter().map(range).collect();
        Ok(Response::new(ListDeadLettersResponse { letters, next_page_token: token(page.next), ranges }))
    }

    async fn show_dead_letter(
        &self,
        request: Request<ShowDeadLetterRequest>,
    ) -> Result<Response<ShowDeadLetterResponse>, Status> {
        let ShowDeadLetterRequest { destination, id, page_token } = request.into_inner();
        let from = place(&page_token)?;
        let filter = filter(Some(DeadLetterFilter { ids: vec![id.clone()], ..DeadLetterFilter::default() }))?;
        let page = self.at(&destination, move |desk| desk.list(&filter, from, 1)).await?;
        let answer = match (page.letters.first(), page.next) {
            (Some(shown), _) => {
                let post = post(shown);
                ShowDeadLetterResponse {
                    letter: Some(letter(shown, post.as_ref())),
                    record_json: json(shown, post.as_ref()),
                    next_page_token: String::new(),
                }
            }
            (None, Some(at)) => {
                ShowDeadLetterResponse { next_page_token: token(Some(at)), ..ShowDeadLetterResponse::default() }
            }
            (None, None) => {
                return Err(Status::not_found(format!("no dead letter of {destination} has the id {id}")));
            }
        };
        Ok(Response::new(answer))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<RedriveDeadLettersRequest>,
    ) -> Result<Response<RedriveDeadLettersResponse>, Status> {
        let RedriveDeadLettersRequest { destination, filter: given, all, page_token } = request.into_inner();
        let (filter, from) = (meant(given, all)?, place(&page_token)?);
        let first = page_token.is_empty();
        let redrive = move |desk: &Desk| {
            let ranges = if first { desk.redrive_marked(&filter) } else { Ok(Ranges::default()) };
            let ranges = ranges.map_err(|error| SweepError::Move(error.into()))?;
            Ok((desk.redrive(&filter, from)?, ranges))
        };
        let (Step { done, next }, ranges) = self.at(&destination, redrive).await?;
        let done = done + ranges.done;
        if done > 0 {
            tracing::info!(%destination, letters = done, "dead letters are sent again, as an operator asked");
        }
        let Ranges { waiting, .. } = ranges;
        Ok(Response::new(RedriveDeadLettersResponse { redriven: done, next_page_token: token(next), waiting }))
    }

    async fn purge_dead_letters(
        &self,
        request: Request<PurgeDeadLettersRequest>,
    ) -> Result<Response<PurgeDeadLettersResponse>, Status> {
        let PurgeDeadLettersRequest { destination, filter: given, all, confirm, page_token } = request.into_inner();
        let (filter, from) = (meant(given, all)?, place(&page_token)?);
        if !confirm {
            return Err(Status::failed_precondition("purged letters are gone for good: set confirm to do it"));
        }
        let purge = move |desk: &Desk| {
            let ranges = desk.let_marked_go(&filter, Settled::Purged);
            let Step { done, next } = desk.purge(&filter, from)?;
            Ok(Step { done: done + ranges, next })
        };
        let Step { done, next } = self.at(&destination, purge).await?;
        if done > 0 {
            tracing::warn!(%destination, letters = done, "dead letters are gone for good, as an operator asked");
        }
        Ok(Response::new(PurgeDeadLettersResponse { purged: done, next_page_token: token(next) }))
    }
}

/// A filter that is to change something: all of them must be meant by saying so.
fn meant(given: Option<DeadLetterFilter>, all: bool) -> Result<Filter, Status> {
    let filter = filter(given)?;
    match (filter == Filter::default(), all) {
        (true, false) => Err(Status::invalid_argument("say which letters by a filter, or set all")),
        (false, true) => Err(Status::invalid_argument("all, or a filter: not both")),
        _ => Ok(filter),
    }
}

fn filter(given: Option<DeadLetterFilter>) -> Result<Filter, Status> {
    let DeadLetterFilter { ids, environment, flag, reason, from_unix_ms, until_unix_ms } = given.unwrap_or_default();
    if ids.len() > limits::LETTERS_MAX as usize {
        return Err(Status::invalid_argument(format!("at most {} ids in one call", limits::LETTERS_MAX)));
    }
    let filter = Filter { ids, environment, flag, reason, from_ms: from_unix_ms, until_ms: until_unix_ms };
    match filter.bad_id() {
        Some(id) => Err(Status::invalid_argument(format!("{id:?} is no record's id: <log>-<stream>-<offset>"))),
        None => Ok(filter),
    }
}

fn place(token: &str) -> Result<u64, Status> {
    let refuse = |_| Status::invalid_argument("page_token is not one that was given: leave it empty at first");
    if token.is_empty() { Ok(0) } else { token.parse().map_err(refuse) }
}

fn token(next: Option<u64>) -> String {
    next.map(|at| at.to_string()).unwrap_or_default()
}

fn range(range: MarkedLetters) -> MarkedRange {
    let Count { records, bytes } = range.count();
    MarkedRange {
        environment: range.environment,
        first: range.offsets.start,
        records,
        bytes,
        dead_since_unix_ms: range.at_ms,
        reason: MARKED_REASON.to_owned(),
    }
}

fn letter(shown: &Shown, post: Option<&Post>) -> DeadLetter {
    DeadLetter {
        post: post.map(described),
        id: shown.id.clone(),
        environment: shown.environment.clone(),
        flag: shown.flag.clone(),
        reason: shown.reason.clone(),
        excerpt: shown.excerpt.clone(),
        dead_since_unix_ms: shown.at_ms,
        attempts: shown.attempts,
    }
}

/// The post that a letter of an upstream is.
fn post(shown: &Shown) -> Option<Post> {
    // What is no impression is none as a post, and the other way round: see `proto/forebay/v1/post.proto`.
    Post::read(&shown.record.0).ok()
}

fn described(post: &Post) -> PostLetter {
    PostLetter {
        method: "POST".to_owned(),
        path: format!("/api/{}", post.path()),
        sdk_key_index: post.sdk_key_index(),
        body_bytes: post.body_bytes(),
        content_type: post.content_type(),
        received_unix_ms: post.received_ms(),
    }
}

/// The record as the file sink writes it, or what a post is; empty if it cannot be read.
fn json(shown: &Shown, post: Option<&Post>) -> String {
    if let Some(post) = post {
        let PostLetter { method, path, sdk_key_index, body_bytes, content_type, received_unix_ms } = described(post);
        let described = serde_json::json!({
            "method": method,
            "path": path,
            "sdk_key_index": sdk_key_index,
            "body_bytes": body_bytes,
            "content_type": content_type,
            "received_unix_ms": received_unix_ms,
            "body": post.excerpt(BODY_CHARS_MAX),
        });
        return described.to_string();
    }
    let (payload, index) = (&shown.record.0, shown.record.1 as usize);
    let environment = EnvironmentLabel { id: &shown.environment, name: &shown.environment_name };
    let mut line = Vec::new();
    let written = StoredBatch::decode(payload).map_err(|_| ()).and_then(|batch| {
        let id = |_, out: &mut Vec<u8>| out.extend_from_slice(shown.id.as_bytes());
        write_json_lines(&batch, index, 1, &environment, &mut line, id).map_err(|_| ())
    });
    match written {
        Ok(()) => String::from_utf8_lossy(&line).trim_end().to_owned(),
        Err(()) => String::new(),
    }
}

/// Whether a queue's stream is one of dead letters: those are no lag.
#[must_use]
pub fn is_dead_letters(stream: &str) -> bool {
    matches!(Shelf::of_stream(stream), Some((Shelf::Dead, _)))
}

#[cfg(test)]
mod tests;
