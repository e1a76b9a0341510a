//! `forebay dead-letters`: lists, shows, sends again, and purges records that their destination does not take.
//!
//! A client of `forebay.v1.DeadLetters` and nothing more. What always holds: a purge says how many it would take and asks,
//! unless it is told not to; without a terminal to ask at it does nothing. What was not counted it leaves where it is.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use forebay::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::args::{
    DeadLettersCommand, LetterFilterArgs, ListLettersArgs, PurgeLettersArgs, RedriveLettersArgs, ShowLetterArgs,
};
use super::client::{self, AsCall, CallError};
use super::confirm::{ConfirmError, confirm};
use crate::config::Listen;
use crate::console::units::{bytes, count, duration};
use crate::proto::v1::dead_letter::Post;
use crate::proto::v1::dead_letters_client::DeadLettersClient;
use crate::proto::v1::{
    CountDeadLettersRequest, DeadLetter, DeadLetterFilter, ListDeadLettersRequest, MarkedRange,
    PurgeDeadLettersRequest, RedriveDeadLettersRequest, ShowDeadLetterRequest,
};

/// Letters asked for at a time.
const PAGE: u32 = 200;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// No connection, or the API answered with an error.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The operator did not say yes.
    #[error(transparent)]
    Confirm(#[from] ConfirmError),
    /// All are to change only where that was said.
    #[error("say which letters: --id, --environment, --flag, --reason, --older-than or --newer-than; or --all of them")]
    Which,
    /// Whether some are meant or all is not clear.
    #[error("--all, or a filter: not both")]
    AllOrSome,
    /// Counts are not filtered.
    #[error("a filter needs a destination: forebay dead-letters list DESTINATION")]
    FilterOfNone,
}

impl AsCall for DeadLettersError {
    fn as_call(&self) -> Option<&CallError> {
        match self {
            Self::Call(error) => Some(error),
            _ => None,
        }
    }
}

/// Does what the command says; writes to standard output.
///
/// # Errors
/// See [`DeadLettersError`]. A reader who has seen enough (`| head`) is no error.
pub fn run(command: &DeadLettersCommand, address: &Listen) -> Result<(), DeadLettersError> {
    // Before anybody is called, or asked.
    makes_sense(command)?;
    let terminal = io::stdin().is_terminal();
    client::block_on(async {
        let mut office = Office::connect(address).await?;
        let answers = terminal.then(|| io::stdin().lock());
        office.serve(command, answers, (&mut io::stdout(), &mut io::stderr())).await
    })
}

/// The API, and where it is.
struct Office {
    address: Listen,
    client: DeadLettersClient<Channel>,
}

impl Office {
    async fn connect(address: &Listen) -> Result<Self, DeadLettersError> {
        let client = DeadLettersClient::new(client::connect(address).await?);
        Ok(Self { address: address.clone(), client })
    }

    /// Does it. `answers` is who can be asked, `notes` where.
    async fn serve(
        &mut self,
        command: &DeadLettersCommand,
        answers: Option<impl BufRead>,
        (out, notes): (&mut impl Write, &mut impl Write),
    ) -> Result<(), DeadLettersError> {
        match command {
            DeadLettersCommand::List(args) => match &args.destination {
                Some(destination) => self.list(destination, args, out).await,
                None => self.count(args, out).await,
            },
            DeadLettersCommand::Show(args) => self.show(args, out).await,
            DeadLettersCommand::Redrive(args) => self.redrive(args, out).await,
            DeadLettersCommand::Purge(args) => self.purge(args, answers, (out, notes)).await,
        }
    }

    async fn count(&mut self, args: &ListLettersArgs, out: &mut impl Write) -> Result<(), DeadLettersError> {
        let request = CountDeadLettersRequest::default();
        let counted = self.client.count_dead_letters(request).await.map_err(|status| self.refused(&status))?;
        let destinations = counted.into_inner().destinations;
        if args.call.json {
            let each = |d: &crate::proto::v1::count_dead_letters_response::Destination| json!({ "destination": d.destination, "records": d.records, "bytes": d.bytes });
            let all: Vec<Value> = destinations.iter().map(each).collect();
            return line(out, &json!({ "destinations": all }).to_string());
        }
        if destinations.iter().all(|destination| destination.records == 0) {
            return line(out, "no dead letters");
        }
        for destination in destinations {
            line(out, &format!("{:<40} {:>12} dead letters", destination.destination, destination.records))?;
        }
        Ok(())
    }

    async fn list(
        &mut self,
        destination: &str,
        args: &ListLettersArgs,
        out: &mut impl Write,
    ) -> Result<(), DeadLettersError> {
        let (mut left, mut page_token, now_ms) = (args.limit, String::new(), now_ms());
        let mut shown = 0;
        while left > 0 {
            let request = ListDeadLettersRequest {
                destination: destination.to_owned(),
                filter: Some(filter(&args.filter, now_ms)),
                page_size: u32::try_from(left).unwrap_or(PAGE).min(PAGE),
                page_token,
            };
            let page = self.client.list_dead_letters(request).await.map_err(|status| self.refused(&status))?;
            let page = page.into_inner();
            for range in &page.ranges {
                let text = if args.call.json { range_as_json(range).to_string() } else { range_as_text(range, now_ms) };
                line(out, &text)?;
            }
            shown += page.ranges.len();
            for letter in &page.letters {
                let text = if args.call.json { as_json(letter).to_string() } else { as_text(letter, now_ms) };
                line(out, &text)?;
            }
            shown += page.letters.len();
            left = left.saturating_sub(page.letters.len() as u64);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        match (args.call.json, shown, page_token.is_empty()) {
            (true, ..) => Ok(()),
            (false, 0, true) => line(out, "no dead letters match"),
            (false, _, false) => line(out, &format!("there may be more: {shown} are shown, ask for them with --limit")),
            _ => Ok(()),
        }
    }

    async fn show(&mut self, args: &ShowLetterArgs, out: &mut impl Write) -> Result<(), DeadLettersError> {
        let mut page_token = String::new();
        loop {
            let request =
                ShowDeadLetterRequest { destination: args.destination.clone(), id: args.id.clone(), page_token };
            let shown = self.client.show_dead_letter(request).await.map_err(|status| self.refused(&status))?;
            let shown = shown.into_inner();
            page_token = shown.next_page_token;
            let Some(letter) = shown.letter else { continue };
            if args.call.json {
                let mut value = as_json(&letter);
                value["record"] = serde_json::from_str(&shown.record_json).unwrap_or(Value::Null);
                return line(out, &value.to_string());
            }
            let now_ms = now_ms();
            line(out, &format!("id           {}", plain(&letter.id)))?;
            line(out, &format!("environment  {}", plain(&letter.environment)))?;
            match &letter.post {
                Some(post) => {
                    line(out, &format!("post         {}", post_as_text(post)))?;
                    line(out, &format!("sdk key      {}/{}", plain(&letter.environment), post.sdk_key_index))?;
                    line(out, &format!("type         {}", plain(&post.content_type)))?;
                }
                None => line(out, &format!("flag         {}", plain(&letter.flag)))?,
            }
            line(out, &format!("reason       {}", plain(&letter.reason)))?;
            line(out, &format!("answer       {}", plain(&letter.excerpt)))?;
            line(out, &format!("dead for     {}", age(&letter, now_ms)))?;
            line(out, &format!("sent         {} times", letter.attempts))?;
            return line(out, &format!("record       {}", plain(&shown.record_json)));
        }
    }

    async fn redrive(&mut self, args: &RedriveLettersArgs, out: &mut impl Write) -> Result<(), DeadLettersError> {
        let (mut page_token, mut redriven, mut waiting, now_ms) = (String::new(), 0, 0, now_ms());
        loop {
            let request = RedriveDeadLettersRequest {
                destination: args.destination.clone(),
                filter: Some(filter(&args.filter, now_ms)),
                all: args.all,
                page_token,
            };
            let step = self.client.redrive_dead_letters(request).await.map_err(|status| self.refused(&status))?;
            let step = step.into_inner();
            redriven += step.redriven;
            waiting += step.waiting;
            page_token = step.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        if args.call.json {
            return line(out, &json!({ "redriven": redriven, "waiting": waiting }).to_string());
        }
        line(out, &format!("{redriven} dead letters are sent again; `forebay lag` shows them as pending"))?;
        if waiting > 0 {
            line(out, &format!("{waiting} more wait until what is sent again now is done: then ask once more"))?;
        }
        Ok(())
    }

    async fn purge(
        &mut self,
        args: &PurgeLettersArgs,
        answers: Option<impl BufRead>,
        (out, notes): (&mut impl Write, &mut impl Write),
    ) -> Result<(), DeadLettersError> {
        let which = &args.which;
        let (mut filter, mut all) = (filter(&which.filter, now_ms()), which.all);
        let mut counted = None;
        if !args.yes {
            let (count, latest_ms) = self.matching(&which.destination, &filter).await?;
            confirm(&format!("{count} dead letters of {}", which.destination), count, answers, notes)?;
            // By the sidecar's own clock: what died since then was not counted, and stays.
            filter.until_unix_ms = Some(latest_ms.saturating_add(1));
            (all, counted) = (false, Some(count));
        }
        let (mut page_token, mut purged) = (String::new(), 0);
        // Without any the bound is that of no letter.
        while counted != Some(0) {
            let request = PurgeDeadLettersRequest {
                destination: which.destination.clone(),
                filter: Some(filter.clone()),
                all,
                confirm: true,
                page_token,
            };
            let step = self.client.purge_dead_letters(request).await.map_err(|status| self.refused(&status))?;
            let step = step.into_inner();
            purged += step.purged;
            page_token = step.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        if which.call.json {
            return line(out, &json!({ "purged": purged, "counted": counted }).to_string());
        }
        line(out, &gone(purged, counted))
    }

    /// How many letters are meant, and when the latest of them died, in milliseconds since 1970.
    async fn matching(&mut self, destination: &str, filter: &DeadLetterFilter) -> Result<(u64, u64), DeadLettersError> {
        let (mut page_token, mut count, mut latest_ms) = (String::new(), 0, 0);
        loop {
            let request = ListDeadLettersRequest {
                destination: destination.to_owned(),
                filter: Some(filter.clone()),
                page_size: PAGE,
                page_token,
            };
            let page = self.client.list_dead_letters(request).await.map_err(|status| self.refused(&status))?;
            let page = page.into_inner();
            count += page.letters.len() as u64 + page.ranges.iter().map(|range| range.records).sum::<u64>();
            let died = page.letters.iter().map(|letter| letter.dead_since_unix_ms);
            let died = died.chain(page.ranges.iter().map(|range| range.dead_since_unix_ms));
            latest_ms = died.fold(latest_ms, u64::max);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok((count, latest_ms));
            }
        }
    }

    fn refused(&self, status: &tonic::Status) -> CallError {
        client::refused(&self.address, status)
    }
}

/// Before anybody is asked anything.
fn makes_sense(command: &DeadLettersCommand) -> Result<(), DeadLettersError> {
    let some = |filter: &LetterFilterArgs| *filter != LetterFilterArgs::default();
    let which = match command {
        DeadLettersCommand::List(args) if args.destination.is_none() && some(&args.filter) => {
            return Err(DeadLettersError::FilterOfNone);
        }
        DeadLettersCommand::List(_) | DeadLettersCommand::Show(_) => return Ok(()),
        DeadLettersCommand::Redrive(which) => which,
        DeadLettersCommand::Purge(args) => &args.which,
    };
    match (which.all, some(&which.filter)) {
        (false, false) => Err(DeadLettersError::Which),
        (true, true) => Err(DeadLettersError::AllOrSome),
        _ => Ok(()),
    }
}

/// What a purge says in the end.
fn gone(purged: u64, counted: Option<u64>) -> String {
    match counted {
        Some(counted) if counted != purged => format!(
            "{purged} dead letters are gone, not the {counted} that were counted: some came or were moved in between"
        ),
        _ => format!("{purged} dead letters are gone"),
    }
}

fn filter(args: &LetterFilterArgs, now_ms: u64) -> DeadLetterFilter {
    let ago = |age: Duration| now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    DeadLetterFilter {
        ids: args.ids.clone(),
        environment: args.environment.clone(),
        flag: args.flag.clone(),
        reason: args.reason.clone(),
        from_unix_ms: args.newer_than.map(ago),
        until_unix_ms: args.older_than.map(|age| ago(age).saturating_add(1)),
    }
}

fn range_as_json(range: &MarkedRange) -> Value {
    json!({
        "environment": range.environment,
        "first_offset": range.first,
        "records": range.records,
        "bytes": range.bytes,
        "dead_since_unix_ms": range.dead_since_unix_ms,
        "reason": range.reason,
    })
}

fn range_as_text(range: &MarkedRange, now_ms: u64) -> String {
    let ago = duration(Duration::from_millis(now_ms.saturating_sub(range.dead_since_unix_ms)));
    format!(
        "{} records from offset {} on ({})  {ago:>6}  {}  {}",
        count(range.records),
        range.first,
        bytes(range.bytes),
        plain(&range.environment),
        plain(&range.reason)
    )
}

fn as_json(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "environment": letter.environment,
        "flag": letter.flag,
        "reason": letter.reason,
        "excerpt": letter.excerpt,
        "dead_since_unix_ms": letter.dead_since_unix_ms,
        "attempts": letter.attempts,
        "post": letter.post.as_ref().map(|post| json!({
            "method": post.method,
            "path": post.path,
            "sdk_key_index": post.sdk_key_index,
            "body_bytes": post.body_bytes,
            "content_type": post.content_type,
            "received_unix_ms": post.received_unix_ms,
        })),
    })
}

/// One line: an impression by its environment and flag, a post by its key's place and path.
fn as_text(letter: &DeadLetter, now_ms: u64) -> String {
    let (environment, what) = match &letter.post {
        Some(post) => (format!("{}/{}", plain(&letter.environment), post.sdk_key_index), post_as_text(post)),
        None => (plain(&letter.environment), plain(&letter.flag)),
    };
    let (id, age, reason) = (plain(&letter.id), age(letter, now_ms), plain(&letter.reason));
    format!("{id}  {age:>6}  {environment}  {what}  {reason}")
}

fn post_as_text(post: &Post) -> String {
    format!("{} {} ({})", plain(&post.method), plain(&post.path), bytes(post.body_bytes))
}

fn age(letter: &DeadLetter, now_ms: u64) -> String {
    duration(Duration::from_millis(now_ms.saturating_sub(letter.dead_since_unix_ms)))
}

fn line(out: &mut impl Write, text: &str) -> Result<(), DeadLettersError> {
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    Ok(written.map_err(CallError::Output)?)
}

/// Text from afar, made safe for a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn now_ms() -> u64 {
    SystemClock::new().wall_ms()
}

#[cfg(test)]
mod tests;
