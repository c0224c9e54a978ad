//! What is done with containers that are there: `start`, `stop`, `restart`, `pause`, `unpause`, `wait`, `update`, and in files
//! of their own `logs`, `stats`, `top`, `cp`, `inspect`.
//!
//! Each is one call of the engine for each container; what fails for one is told, and the others are done all the same.
//!
//! Not here: `exec` (`run`, whose terminal and signals it shares), lists and removal (`containers`).

pub(crate) mod copy;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod stats;
pub(crate) mod top;

use runtime_api::windlass::v1::{
    PauseRequest, RestartRequest, StartRequest, StopRequest, UpdateRequest, WaitRequest,
};

use super::containers::find;
use super::for_each;
use crate::args::{Global, ManyArgs, StopArgs, UpdateArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::interrupt::or_interrupted;
use crate::output;

/// `start`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn start(global: &Global, args: &ManyArgs) -> Result<(), CliError> {
    let client = &Client::connect(global).await?;
    for_each(&args.ids, |typed| async move {
        let id = find(client, typed).await?.id;
        let request = StartRequest { id: id.clone(), attach: false };
        client.lives().start(request).await.map_err(failed(format!("start container {id}")))?;
        output::print(&format!("{id}\n"))
    })
    .await
}

/// `stop`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn stop(global: &Global, args: &StopArgs) -> Result<(), CliError> {
    let client = &Client::connect(global).await?;
    for_each(&args.ids, |typed| async move {
        let id = find(client, typed).await?.id;
        let request = StopRequest {
            id: id.clone(),
            signal: args.signal.clone().unwrap_or_default(),
            timeout_ms: milliseconds(args.time),
            timeout_set: args.time.is_some(),
        };
        client.lives().stop(request).await.map_err(failed(format!("stop container {id}")))?;
        output::print(&format!("{id}\n"))
    })
    .await
}

/// `restart`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn restart(global: &Global, args: &StopArgs) -> Result<(), CliError> {
    let client = &Client::connect(global).await?;
    for_each(&args.ids, |typed| async move {
        let id = find(client, typed).await?.id;
        let request = RestartRequest {
            id: id.clone(),
            signal: args.signal.clone().unwrap_or_default(),
            timeout_ms: milliseconds(args.time),
            timeout_set: args.time.is_some(),
        };
        client.lives().restart(request).await.map_err(failed(format!("restart container {id}")))?;
        output::print(&format!("{id}\n"))
    })
    .await
}

fn milliseconds(seconds: Option<u32>) -> u64 {
    u64::from(seconds.unwrap_or(0)) * 1000
}

/// `pause`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn pause(global: &Global, args: &ManyArgs) -> Result<(), CliError> {
    let client = &Client::connect(global).await?;
    for_each(&args.ids, |typed| async move {
        let id = find(client, typed).await?.id;
        let request = PauseRequest { id: id.clone() };
        client.lives().pause(request).await.map_err(failed(format!("pause container {id}")))?;
        output::print(&format!("{id}\n"))
    })
    .await
}

/// `unpause`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn unpause(global: &Global, args: &ManyArgs) -> Result<(), CliError> {
    let client = &Client::connect(global).await?;
    for_each(&args.ids, |typed| async move {
        let id = find(client, typed).await?.id;
        let request = PauseRequest { id: id.clone() };
        client.lives().unpause(request).await.map_err(failed(format!("go on with container {id}")))?;
        output::print(&format!("{id}\n"))
    })
    .await
}

/// `wait`: the exit code of each, in the order they were named.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn wait(global: &Global, args: &ManyArgs) -> Result<(), CliError> {
    let client = &Client::connect(global).await?;
    let all = for_each(&args.ids, |typed| async move {
        let id = find(client, typed).await?.id;
        let request = WaitRequest { id: id.clone(), exec_id: String::new() };
        let ended = client.lives().wait(request).await.map_err(failed(format!("wait for container {id}")))?;
        output::print(&format!("{}\n", ended.into_inner().exit_code))
    });
    or_interrupted(all).await
}

/// `update`.
///
/// # Errors
/// [`CliError::NothingToDo`] when nothing is to be changed.
pub(crate) async fn update(global: &Global, args: &UpdateArgs) -> Result<(), CliError> {
    let (resources, restart) = (args.limits.resources(), args.restart.clone().unwrap_or_default());
    if resources.is_none() && restart.is_empty() {
        return Err(CliError::NothingToDo("give a limit such as --memory, or --restart"));
    }
    let (client, resources, restart) = (&Client::connect(global).await?, &resources, &restart);
    for_each(&args.ids, |typed| async move {
        let id = find(client, typed).await?.id;
        let request =
            UpdateRequest { id: id.clone(), resources: resources.clone(), restart: restart.clone() };
        client.lives().update(request).await.map_err(failed(format!("update container {id}")))?;
        output::print(&format!("{id}\n"))
    })
    .await
}
