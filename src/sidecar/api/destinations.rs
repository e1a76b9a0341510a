//! The service `forebay.v1.Destinations`: destinations and environments at run time.
//!
//! Decides nothing: it passes on what is asked to [`Operations`], and tells its answer in gRPC's words.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

use super::limits;
use crate::delivery::sink::BoxFuture;
use crate::proto::v1::destinations_server::Destinations;
use crate::proto::v1::{
    AcceptFloorLossRequest, AcceptFloorLossResponse, CreateDestinationRequest, CreateDestinationResponse,
    CreateEnvironmentRequest, CreateEnvironmentResponse, DeleteDestinationRequest, DeleteDestinationResponse,
    DeleteEnvironmentRequest, DeleteEnvironmentResponse, Destination, Environment, GetDestinationRequest,
    GetDestinationResponse, ListDestinationsRequest, ListDestinationsResponse, ListEnvironmentsRequest,
    ListEnvironmentsResponse, PauseDestinationRequest, PauseDestinationResponse, ProbeDestinationRequest,
    ProbeDestinationResponse, ResumeDestinationRequest, ResumeDestinationResponse, UpdateDestinationRequest,
    UpdateDestinationResponse,
};

/// What an operator may have done at run time. What an answer says is durable, save for a probe.
pub trait Operations: Send + Sync {
    /// Makes a destination, or gives one that was made here other settings. Returns it with what is odd about them.
    fn put_destination(&self, settings: String, put: Put) -> Answer<'_, (Destination, Vec<String>)>;
    /// One destination with its settings.
    fn destination(&self, id: String) -> Answer<'_, Destination>;
    /// Destinations that come behind `after`, by id.
    fn destinations(&self, after: String, most: usize) -> Answer<'_, Vec<Destination>>;
    /// Deletes a destination, at once or when it has what is there.
    fn delete_destination(&self, id: String, how: Delete) -> Answer<'_, DeleteDestinationResponse>;
    /// Deletes what a destination has of an environment that it takes from no more, which is given up with `purge` and must be
    /// nothing without.
    fn delete_left(&self, id: String, environment: String, purge: bool) -> Answer<'_, DeleteDestinationResponse>;
    /// Pauses a destination, or goes on with it.
    fn pause_destination(&self, id: String, paused: bool) -> Answer<'_, Destination>;
    /// Tries a destination now, whatever it waits for. Does not wait for what comes of it, and writes nothing down.
    fn probe_destination(&self, id: String) -> Answer<'_, Destination>;
    /// Makes an environment. Returns it with what is odd about its settings.
    fn create_environment(&self, settings: String) -> Answer<'_, (Environment, Vec<String>)>;
    /// All environments, by id.
    fn environments(&self) -> Answer<'_, Vec<Environment>>;
    /// Deletes an environment.
    fn delete_environment(&self, id: String) -> Answer<'_, ()>;
    /// What damaged floors have lost, log by log; and if it is `accepted`, lets go what no queue that there is needs.
    fn floor_loss(&self, request: AcceptFloorLossRequest) -> Answer<'_, AcceptFloorLossResponse>;
}

/// What came of it.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Refused>>;

/// Whether there has to be one already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There must be none.
    Create,
    /// There must be one.
    Update,
}

/// What becomes of records that a destination has not got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delete {
    /// There must be none.
    Empty,
    /// They are given up.
    Purge,
    /// They are delivered first.
    Drain,
}

/// It was not done, and nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none of this id.
    #[error("{0}")]
    NotFound(String),
    /// The id is taken.
    #[error("{0}")]
    Exists(String),
    /// The settings have mistakes.
    #[error("{0}")]
    Invalid(String),
    /// Not as things are.
    #[error("{0}")]
    Precondition(String),
    /// It can't be written down now.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::NotFound(_) => Code::NotFound,
            Refused::Exists(_) => Code::AlreadyExists,
            Refused::Invalid(_) => Code::InvalidArgument,
            Refused::Precondition(_) => Code::FailedPrecondition,
            Refused::Unavailable(_) => Code::Unavailable,
        };
        Self::new(code, refused.to_string())
    }
}

/// The service. What always holds: a change that was begun comes to its end, whether or not whoever asked for it waits.
pub(super) struct DestinationsService {
    operations: Arc<dyn Operations>,
    changes: Arc<Semaphore>,
}

impl DestinationsService {
    pub(super) fn new(operations: Arc<dyn Operations>) -> Self {
        Self { operations, changes: Arc::new(Semaphore::new(limits::CHANGES_MAX)) }
    }

    /// Has a change made in a task of its own. A call ends when its client hangs up or its time is over, wherever its
    /// handler waits: a destination whose new settings are written down, and whose loop is stopped, would stand still.
    async fn change<T: Send + 'static>(
        &self,
        change: impl for<'a> FnOnce(&'a dyn Operations) -> Answer<'a, T> + Send + 'static,
    ) -> Result<T, Status> {
        let Ok(place) = Arc::clone(&self.changes).try_acquire_owned() else {
            let changes = limits::CHANGES_MAX;
            return Err(Status::resource_exhausted(format!("{changes} changes wait to be made: try again later")));
        };
        let operations = Arc::clone(&self.operations);
        let made = tokio::spawn(async move {
            let made = change(&*operations).await;
            drop(place);
            made
        });
        match made.await {
            Ok(made) => Ok(made?),
            Err(stopped) => Err(Status::internal(format!("the change came to no end: {stopped}"))),
        }
    }

    async fn put(&self, settings: String, put: Put) -> Result<(Destination, Vec<String>), Status> {
        self.change(move |operations| operations.put_destination(settings, put)).await
    }

    async fn pause(&self, id: String, paused: bool) -> Result<Destination, Status> {
        self.change(move |operations| operations.pause_destination(id, paused)).await
    }
}

#[tonic::async_trait]
impl Destinations for DestinationsService {
    async fn create_destination(
        &self,
        request: Request<CreateDestinationRequest>,
    ) -> Result<Response<CreateDestinationResponse>, Status> {
        let (destination, warnings) = self.put(request.into_inner().settings, Put::Create).await?;
        Ok(Response::new(CreateDestinationResponse { destination: Some(destination), warnings }))
    }

    async fn update_destination(
        &self,
        request: Request<UpdateDestinationRequest>,
    ) -> Result<Response<UpdateDestinationResponse>, Status> {
        let (destination, warnings) = self.put(request.into_inner().settings, Put::Update).await?;
        Ok(Response::new(UpdateDestinationResponse { destination: Some(destination), warnings }))
    }

    async fn get_destination(
        &self,
        request: Request<GetDestinationRequest>,
    ) -> Result<Response<GetDestinationResponse>, Status> {
        let destination = self.operations.destination(request.into_inner().id).await?;
        Ok(Response::new(GetDestinationResponse { destination: Some(destination) }))
    }

    async fn list_destinations(
        &self,
        request: Request<ListDestinationsRequest>,
    ) -> Result<Response<ListDestinationsResponse>, Status> {
        let ListDestinationsRequest { page_size, page_token } = request.into_inner();
        let most = limits::page(page_size);
        let mut destinations = self.operations.destinations(page_token, most + 1).await?;
        let more = destinations.len() > most;
        destinations.truncate(most);
        let last = destinations.last().filter(|_| more);
        let next_page_token = last.map(|destination| destination.id.clone()).unwrap_or_default();
        Ok(Response::new(ListDestinationsResponse { destinations, next_page_token }))
    }

    async fn delete_destination(
        &self,
        request: Request<DeleteDestinationRequest>,
    ) -> Result<Response<DeleteDestinationResponse>, Status> {
        let DeleteDestinationRequest { id, purge, drain, environment } = request.into_inner();
        if !environment.is_empty() {
            if drain {
                return Err(Status::invalid_argument("nothing delivers what an environment left: it can't be drained"));
            }
            let deleted = self.change(move |operations| operations.delete_left(id, environment, purge)).await?;
            return Ok(Response::new(deleted));
        }
        let how = match (purge, drain) {
            (true, true) => {
                return Err(Status::invalid_argument("purge gives up what drain delivers: set one of them"));
            }
            (true, false) => Delete::Purge,
            (false, true) => Delete::Drain,
            (false, false) => Delete::Empty,
        };
        Ok(Response::new(self.change(move |operations| operations.delete_destination(id, how)).await?))
    }

    async fn pause_destination(
        &self,
        request: Request<PauseDestinationRequest>,
    ) -> Result<Response<PauseDestinationResponse>, Status> {
        let destination = self.pause(request.into_inner().id, true).await?;
        Ok(Response::new(PauseDestinationResponse { destination: Some(destination) }))
    }

    async fn resume_destination(
        &self,
        request: Request<ResumeDestinationRequest>,
    ) -> Result<Response<ResumeDestinationResponse>, Status> {
        let destination = self.pause(request.into_inner().id, false).await?;
        Ok(Response::new(ResumeDestinationResponse { destination: Some(destination) }))
    }

    async fn probe_destination(
        &self,
        request: Request<ProbeDestinationRequest>,
    ) -> Result<Response<ProbeDestinationResponse>, Status> {
        let destination = self.operations.probe_destination(request.into_inner().id).await?;
        Ok(Response::new(ProbeDestinationResponse { destination: Some(destination) }))
    }

    async fn create_environment(
        &self,
        request: Request<CreateEnvironmentRequest>,
    ) -> Result<Response<CreateEnvironmentResponse>, Status> {
        let settings = request.into_inner().settings;
        let (environment, warnings) = self.change(|operations| operations.create_environment(settings)).await?;
        Ok(Response::new(CreateEnvironmentResponse { environment: Some(environment), warnings }))
    }

    async fn list_environments(
        &self,
        _: Request<ListEnvironmentsRequest>,
    ) -> Result<Response<ListEnvironmentsResponse>, Status> {
        Ok(Response::new(ListEnvironmentsResponse { environments: self.operations.environments().await? }))
    }

    async fn delete_environment(
        &self,
        request: Request<DeleteEnvironmentRequest>,
    ) -> Result<Response<DeleteEnvironmentResponse>, Status> {
        let id = request.into_inner().id;
        self.change(|operations| operations.delete_environment(id)).await?;
        Ok(Response::new(DeleteEnvironmentResponse {}))
    }

    async fn accept_floor_loss(
        &self,
        request: Request<AcceptFloorLossRequest>,
    ) -> Result<Response<AcceptFloorLossResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.change(move |operations| operations.floor_loss(request)).await?))
    }
}
