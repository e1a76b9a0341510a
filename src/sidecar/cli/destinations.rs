//! `forebay destinations` and `forebay environments`: a client of `forebay.v1.Destinations` and nothing more.

mod shown;

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tonic::Status;
use tonic::transport::Channel;

use super::args::{
    CallArgs, DeleteArgs, DestinationsCommand, EnvironmentsCommand, FloorLossArgs, OneArgs, SettingsArgs,
};
use super::client::{self, AsCall, CallError};
use super::confirm::{ConfirmError, confirm};
use super::{check, code_of};
use crate::config::{self, Listen};
use crate::proto::v1::dead_letters_client::DeadLettersClient;
use crate::proto::v1::destinations_client::DestinationsClient;
use crate::proto::v1::{
    AcceptFloorLossRequest, CountDeadLettersRequest, CreateDestinationRequest, CreateEnvironmentRequest,
    DeleteDestinationRequest, DeleteEnvironmentRequest, Destination, GetDestinationRequest, ListDestinationsRequest,
    ListEnvironmentsRequest, PauseDestinationRequest, ProbeDestinationRequest, ResumeDestinationRequest,
    UpdateDestinationRequest,
};

/// A destination that is replaced has its grace for what is in flight.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// As many as the API gives at a time.
const PAGE: u32 = 1_000;

/// Why it was not done, or not shown.
#[derive(Debug, thiserror::Error)]
pub enum DestinationsError {
    /// No connection, or the API answered with an error.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The settings can't be read.
    #[error("{path:?} can't be read")]
    Settings {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was not said that records may go.
    #[error(transparent)]
    Confirm(#[from] ConfirmError),
    /// The same of a floor's loss, which was shown.
    #[error("nothing was done: say --yes to accept it")]
    NotAccepted,
}

impl AsCall for DestinationsError {
    fn as_call(&self) -> Option<&CallError> {
        match self {
            Self::Call(error) => Some(error),
            _ => None,
        }
    }
}

/// What is to be done, and where.
pub struct Wish {
    what: What,
    call: CallArgs,
}

enum What {
    List,
    Show(String),
    Create(std::path::PathBuf),
    Update(std::path::PathBuf),
    Delete { id: String, environment: String, purge: bool, drain: bool, yes: bool },
    Pause(String),
    Resume(String),
    Probe(String),
    ListEnvironments,
    CreateEnvironment(std::path::PathBuf),
    DeleteEnvironment(String),
    AcceptFloorLoss { yes: bool, unread_decisions: bool },
}

impl Wish {
    /// What a command about destinations asks for.
    #[must_use]
    pub fn of_destinations(command: DestinationsCommand) -> Self {
        let (what, call) = match command {
            DestinationsCommand::List(call) => (What::List, call),
            DestinationsCommand::Show(OneArgs { id, call }) => (What::Show(id), call),
            DestinationsCommand::Create(SettingsArgs { settings, call }) => (What::Create(settings), call),
            DestinationsCommand::Update(SettingsArgs { settings, call }) => (What::Update(settings), call),
            DestinationsCommand::Delete(DeleteArgs { id, environment, purge, drain, yes, call }) => {
                (What::Delete { id, environment: environment.unwrap_or_default(), purge, drain, yes }, call)
            }
            DestinationsCommand::Pause(OneArgs { id, call }) => (What::Pause(id), call),
            DestinationsCommand::Resume(OneArgs { id, call }) => (What::Resume(id), call),
            DestinationsCommand::Probe(OneArgs { id, call }) => (What::Probe(id), call),
            DestinationsCommand::AcceptFloorLoss(FloorLossArgs { yes, unread_decisions, call }) => {
                (What::AcceptFloorLoss { yes, unread_decisions }, call)
            }
        };
        Self { what, call }
    }

    /// What a command about environments asks for.
    #[must_use]
    pub fn of_environments(command: EnvironmentsCommand) -> Self {
        let (what, call) = match command {
            EnvironmentsCommand::List(call) => (What::ListEnvironments, call),
            EnvironmentsCommand::Create(SettingsArgs { settings, call }) => (What::CreateEnvironment(settings), call),
            EnvironmentsCommand::Delete(OneArgs { id, call }) => (What::DeleteEnvironment(id), call),
        };
        Self { what, call }
    }
}

/// Has it done, and shows what came of it on standard output.
#[must_use]
pub fn run(wish: &Wish) -> ExitCode {
    let address = match check::api_at(wish.call.address.as_ref(), wish.call.config.as_deref()) {
        Ok(address) => address,
        Err(code) => return code,
    };
    code_of(client::block_on(act(wish, &address, &mut io::stdout(), &mut io::stderr())))
}

async fn act(
    wish: &Wish,
    address: &Listen,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), DestinationsError> {
    // Before the connection: a file that is not there needs none.
    let settings = match &wish.what {
        What::Create(path) | What::Update(path) | What::CreateEnvironment(path) => settings(path)?,
        _ => String::new(),
    };
    let refused = |status: Status| client::refused(address, &status);
    let channel = client::connect_for(address, ANSWER_TIME_MAX).await?;
    if let What::Delete { id, environment, purge: true, yes: false, .. } = &wish.what {
        let pending = pending(channel.clone(), id, environment).await.map_err(refused)?;
        ask((id, environment), pending, io::stdin().is_terminal().then(|| io::stdin().lock()), notes)?;
    }
    let (text, warnings) = done(&wish.what, channel, settings, wish.call.json).await.map_err(refused)?;
    let written = (warnings.iter().try_for_each(|warning| writeln!(notes, "forebay: warning: {warning}")))
        .and_then(|()| out.write_all(text.as_bytes()))
        .and_then(|()| out.flush());
    written.map_err(CallError::Output)?;
    if let What::AcceptFloorLoss { yes: false, .. } = wish.what { Err(DestinationsError::NotAccepted) } else { Ok(()) }
}

/// Has it done. What came of it, for people or as JSON, and what is odd about it.
async fn done(what: &What, channel: Channel, settings: String, json: bool) -> Result<(String, Vec<String>), Status> {
    let mut client = DestinationsClient::new(channel);
    Ok(match what {
        What::List => (shown::destinations(&all(&mut client).await?, json), Vec::new()),
        What::Show(id) => {
            let answer = client.get_destination(GetDestinationRequest { id: id.clone() }).await?.into_inner();
            (shown::destination(&answer.destination.unwrap_or_default(), json), Vec::new())
        }
        What::Create(_) => {
            let answer = client.create_destination(CreateDestinationRequest { settings }).await?.into_inner();
            (shown::done("made", &answer.destination.unwrap_or_default(), json), answer.warnings)
        }
        What::Update(_) => {
            let answer = client.update_destination(UpdateDestinationRequest { settings }).await?.into_inner();
            (shown::done("changed", &answer.destination.unwrap_or_default(), json), answer.warnings)
        }
        What::Delete { id, environment, purge, drain, .. } => {
            let (id, environment) = (id.clone(), environment.clone());
            let request = DeleteDestinationRequest { id, environment, purge: *purge, drain: *drain };
            let answer = client.delete_destination(request.clone()).await?.into_inner();
            (shown::deleted(&request, &answer, json), Vec::new())
        }
        What::Pause(id) => {
            let answer = client.pause_destination(PauseDestinationRequest { id: id.clone() }).await?.into_inner();
            (shown::done("paused", &answer.destination.unwrap_or_default(), json), Vec::new())
        }
        What::Resume(id) => {
            let answer = client.resume_destination(ResumeDestinationRequest { id: id.clone() }).await?.into_inner();
            (shown::done("resumed", &answer.destination.unwrap_or_default(), json), Vec::new())
        }
        What::Probe(id) => {
            let answer = client.probe_destination(ProbeDestinationRequest { id: id.clone() }).await?.into_inner();
            (shown::done("being tried", &answer.destination.unwrap_or_default(), json), Vec::new())
        }
        What::ListEnvironments => {
            let answer = client.list_environments(ListEnvironmentsRequest {}).await?.into_inner();
            (shown::environments(&answer.environments, json), Vec::new())
        }
        What::CreateEnvironment(_) => {
            let answer = client.create_environment(CreateEnvironmentRequest { settings }).await?.into_inner();
            (shown::environments(answer.environment.as_slice(), json), answer.warnings)
        }
        What::DeleteEnvironment(id) => {
            client.delete_environment(DeleteEnvironmentRequest { id: id.clone() }).await?;
            (shown::environment_deleted(id, json), Vec::new())
        }
        What::AcceptFloorLoss { yes, unread_decisions } => {
            let request = AcceptFloorLossRequest { accepted: *yes, unread_decisions_accepted: *unread_decisions };
            let answer = client.accept_floor_loss(request).await?.into_inner();
            (shown::floor_losses(&answer, *yes, json), Vec::new())
        }
    })
}

/// What a destination has not got, or what an environment has left there: pending records, and dead letters.
async fn pending(channel: Channel, id: &str, environment: &str) -> Result<(u64, u64), Status> {
    let request = GetDestinationRequest { id: id.to_owned() };
    let got = DestinationsClient::new(channel.clone()).get_destination(request).await?.into_inner();
    if !environment.is_empty() {
        let left = got.destination.unwrap_or_default().left;
        let left = left.into_iter().find(|left| left.environment == environment);
        return Ok(left.map_or((0, 0), |left| (left.records_pending, left.dead_letters)));
    }
    let request = CountDeadLettersRequest { destination: id.to_owned() };
    let counted = DeadLettersClient::new(channel).count_dead_letters(request).await?.into_inner();
    let dead = counted.destinations.iter().map(|destination| destination.records).sum();
    Ok((got.destination.unwrap_or_default().records_pending, dead))
}

/// Asks whether all that may go.
fn ask(
    (id, environment): (&str, &str),
    (pending, dead): (u64, u64),
    answers: Option<impl BufRead>,
    notes: &mut impl Write,
) -> Result<(), ConfirmError> {
    let of =
        if environment.is_empty() { String::new() } else { format!("what environment {environment} has left in ") };
    let what = format!("{of}destination {id}, {pending} pending records and {dead} dead letters");
    confirm(&what, pending + dead, answers, notes)
}

async fn all(client: &mut DestinationsClient<Channel>) -> Result<Vec<Destination>, Status> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListDestinationsRequest { page_size: PAGE, page_token };
        let page = client.list_destinations(request).await?.into_inner();
        all.extend(page.destinations);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

fn settings(path: &Path) -> Result<String, DestinationsError> {
    let text = if path == Path::new("-") { io::read_to_string(io::stdin()) } else { config::read_settings(path) };
    text.map_err(|source| DestinationsError::Settings { path: path.to_owned(), source })
}
