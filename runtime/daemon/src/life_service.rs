//! `windlass.v1.Containers`: what is done with containers once they exist, whoever made them.
//!
//! Thin: a request becomes a call of the engine, its answer a message. What takes long holds no thread of the network's.

use std::io::Read;
use std::pin::Pin;
use std::time::Duration;

use runtime_api::windlass::v1 as wire;
use runtime_container::spec::Limits;
use runtime_engine::{Engine, EngineError, ExecRequest, ProcessLine, Status as Process, Usage};
use storage_model::Namespace;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::call::{blocking, namespace};
use crate::engine_service::container::{container_details_out, mounts_of};
use crate::pipe::{Chunk, Source};
use crate::status::{invalid, status, stopping};
use crate::stop::Stop;

/// Time between two rounds of figures, unless the client says otherwise.
const ROUND: Duration = Duration::from_secs(1);

/// The shortest time between two rounds: reading the figures of a hundred containers takes some 10 ms.
const ROUND_MIN: Duration = Duration::from_millis(100);

/// Longest that the first message of a copy is waited for.
const OPTIONS_WAIT: Duration = Duration::from_secs(30);

/// Bytes of a tar in one message.
const PIECE_BYTES: usize = 256 * 1024;

/// Messages that wait for a slow client.
const WAITING: usize = 4;

/// The service.
#[derive(Clone)]
pub(crate) struct LifeService {
    engine: Engine,
    stop: Stop,
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl LifeService {
    pub(crate) fn new(engine: Engine, stop: Stop) -> Self {
        Self { engine, stop }
    }

    /// Does `work` with a request, in its namespace, on a thread that may block.
    async fn work<R, T, F>(&self, request: Request<R>, work: F) -> Result<Response<T>, Status>
    where
        R: Send + 'static,
        T: Send + 'static,
        F: FnOnce(&Engine, &Namespace, R) -> Result<T, EngineError> + Send + 'static,
    {
        let namespace = namespace(request.metadata())?;
        let (engine, request) = (self.engine.clone(), request.into_inner());
        blocking(move || work(&engine, &namespace, request)).await.map(Response::new)
    }
}

fn grace(milliseconds: u64, given: bool) -> Option<Duration> {
    given.then(|| Duration::from_millis(milliseconds))
}

fn pid_of(engine: &Engine, namespace: &Namespace, id: &str) -> Result<u32, EngineError> {
    Ok(match engine.container(namespace, id)?.status {
        Process::Running { pid } => pid,
        _ => 0,
    })
}

fn limits_in(given: Option<wire::Resources>) -> Limits {
    let given = given.unwrap_or_default();
    Limits {
        memory_bytes: given.memory_bytes,
        memory_swap_bytes: given.memory_swap_bytes,
        memory_reservation_bytes: given.memory_reservation_bytes,
        cpu_millis: given.cpu_millis,
        cpu_shares: given.cpu_shares,
        cpuset_cpus: given.cpuset_cpus,
        cpuset_mems: given.cpuset_mems,
        pids: given.pids,
        blkio_weight: given.blkio_weight,
        ..Limits::default()
    }
}

fn process_out(line: ProcessLine) -> wire::TopProcess {
    wire::TopProcess {
        pid: line.pid,
        parent: line.parent,
        uid: line.uid,
        state: line.state,
        cpu_ms: line.cpu_ms,
        memory_bytes: line.memory_bytes,
        started_at: line.started_at,
        terminal: line.terminal,
        command: line.command,
        exec_id: String::new(),
    }
}

fn usage_out(id: String, usage: Result<Usage, EngineError>) -> wire::ContainerStats {
    let usage = match usage {
        Ok(usage) => usage,
        Err(error) => {
            return wire::ContainerStats { id, error: error.to_string(), ..wire::ContainerStats::default() };
        }
    };
    wire::ContainerStats {
        id,
        cpu_ns: usage.cpu_ns,
        at_ns: usage.at_ns,
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        pids: usage.pids,
        pids_limit: usage.pids_limit,
        network_received_bytes: usage.network_received_bytes,
        network_sent_bytes: usage.network_sent_bytes,
        block_read_bytes: usage.block_read_bytes,
        block_written_bytes: usage.block_written_bytes,
        error: String::new(),
        cpu_limit_millis: usage.cpu_limit_millis,
    }
}

/// Figures of the containers named, or of all that run.
fn round(engine: &Engine, namespace: &Namespace, ids: &[String]) -> Result<wire::StatsResponse, EngineError> {
    let ids: Vec<String> = if ids.is_empty() {
        let all = engine.containers(namespace)?.into_iter();
        let running = all.filter(|state| matches!(state.status, Process::Running { .. }));
        running.map(|state| state.record.id.to_string()).collect()
    } else {
        ids.to_vec()
    };
    let figures = ids.into_iter().map(|id| {
        let usage = engine.usage(namespace, &id);
        usage_out(id, usage)
    });
    Ok(wire::StatsResponse { containers: figures.collect() })
}

/// Reads a tar piece by piece into messages; ends when its client has gone.
fn send_tar(
    engine: &Engine,
    namespace: &Namespace,
    request: &wire::CopyOutRequest,
    client: &mpsc::Sender<Result<wire::CopyOutResponse, Status>>,
) -> Result<(), EngineError> {
    use wire::copy_out_response::Part;
    let mut copied = engine.copy_out(namespace, &request.id, &request.path, request.follow_link)?;
    let found = wire::CopiedPath {
        name: copied.found.name.clone(),
        is_directory: copied.found.is_directory,
        size_bytes: copied.found.size_bytes,
        mode: copied.found.mode,
    };
    let message = |part| Ok(wire::CopyOutResponse { part: Some(part) });
    let mut sent = client.blocking_send(message(Part::Found(found)));
    let mut piece = vec![0; PIECE_BYTES];
    while sent.is_ok() {
        match copied.read(&mut piece)? {
            0 => break,
            count => sent = client.blocking_send(message(Part::Data(piece[..count].to_vec()))),
        }
    }
    Ok(())
}

/// Carries a tar's bytes to their reader.
async fn carry(mut messages: Streaming<wire::CopyInRequest>, chunks: mpsc::Sender<Chunk>) {
    use wire::copy_in_request::Part;
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = chunks.closed() => return,
        };
        let chunk = match message {
            Ok(Some(wire::CopyInRequest { part: Some(Part::Data(data)) })) => Chunk::Data(data),
            Ok(None) => Chunk::End,
            // Something else, or a client that went: the reader knows that something is missing.
            Ok(Some(_)) | Err(_) => return,
        };
        let last = matches!(chunk, Chunk::End);
        if chunks.send(chunk).await.is_err() || last {
            return;
        }
    }
}

#[tonic::async_trait]
impl wire::containers_server::Containers for LifeService {
    async fn inspect(
        &self,
        request: Request<wire::InspectRequest>,
    ) -> Result<Response<wire::InspectResponse>, Status> {
        self.work(request, |engine, namespace, wire::InspectRequest { id }| {
            let state = engine.container(namespace, &id)?;
            let snapshot_key = state.record.snapshot_key.clone();
            let mounts = mounts_of(&state);
            let (container, options_json) = container_details_out(engine, namespace, state);
            Ok(wire::InspectResponse { container: Some(container), options_json, snapshot_key, mounts })
        })
        .await
    }

    async fn start(
        &self,
        request: Request<wire::StartRequest>,
    ) -> Result<Response<wire::StartResponse>, Status> {
        self.work(request, |engine, namespace, wire::StartRequest { id, attach }| {
            let started = engine.start_container(namespace, &id, attach)?;
            let pid = pid_of(engine, namespace, &id)?;
            Ok(wire::StartResponse { pid, shim_socket: started.shim_socket.display().to_string() })
        })
        .await
    }

    async fn stop(
        &self,
        request: Request<wire::StopRequest>,
    ) -> Result<Response<wire::StopResponse>, Status> {
        self.work(request, |engine, namespace, request| {
            let grace = grace(request.timeout_ms, request.timeout_set);
            let stopped = engine.stop_container(namespace, &request.id, &request.signal, grace)?;
            Ok(wire::StopResponse { exit_code: stopped.code, killed: stopped.killed })
        })
        .await
    }

    async fn restart(
        &self,
        request: Request<wire::RestartRequest>,
    ) -> Result<Response<wire::StartResponse>, Status> {
        self.work(request, |engine, namespace, request| {
            let grace = grace(request.timeout_ms, request.timeout_set);
            let started = engine.restart_container(namespace, &request.id, &request.signal, grace)?;
            let pid = pid_of(engine, namespace, &request.id)?;
            Ok(wire::StartResponse { pid, shim_socket: started.shim_socket.display().to_string() })
        })
        .await
    }

    async fn pause(
        &self,
        request: Request<wire::PauseRequest>,
    ) -> Result<Response<wire::PauseResponse>, Status> {
        self.work(request, |engine, namespace, wire::PauseRequest { id }| {
            engine.pause_task(namespace, &id).map(|()| wire::PauseResponse {})
        })
        .await
    }

    async fn unpause(
        &self,
        request: Request<wire::PauseRequest>,
    ) -> Result<Response<wire::PauseResponse>, Status> {
        self.work(request, |engine, namespace, wire::PauseRequest { id }| {
            engine.resume_task(namespace, &id).map(|()| wire::PauseResponse {})
        })
        .await
    }

    async fn exec(
        &self,
        request: Request<wire::ExecRequest>,
    ) -> Result<Response<wire::ExecResponse>, Status> {
        self.work(request, |engine, namespace, request| {
            let wanted = ExecRequest {
                exec_id: request.exec_id,
                args: request.args,
                env: request.env,
                cwd: request.cwd,
                user: request.user,
                terminal: request.terminal,
                privileged: request.privileged,
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                size: (request.rows, request.columns),
            };
            let (exec_id, pid) = engine.exec(namespace, &request.id, wanted)?;
            Ok(wire::ExecResponse { exec_id, pid })
        })
        .await
    }

    async fn wait(
        &self,
        request: Request<wire::WaitRequest>,
    ) -> Result<Response<wire::WaitResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::WaitRequest { id, exec_id } = request.into_inner();
        let (sender, receiver) = oneshot::channel();
        let engine = self.engine.clone();
        blocking(move || {
            // A client that has gone does not listen.
            let waiter = Box::new(move |outcome| drop(sender.send(outcome)));
            engine.when_ended(&namespace, &id, &exec_id, waiter)
        })
        .await?;
        let outcome = tokio::select! {
            outcome = receiver => outcome.map_err(|_| Status::internal("a container went without a word"))?,
            () = self.stop.stopping() => return Err(stopping()),
        };
        let exit = outcome.map_err(|error| status(EngineError::from(error)))?;
        let finished = exit.at.map_or(0, |at| at.seconds * 1000 + i64::from(at.nanos) / 1_000_000);
        Ok(Response::new(wire::WaitResponse {
            exit_code: exit.status,
            finished_at_ms: finished,
            error: String::new(),
        }))
    }

    async fn top(&self, request: Request<wire::TopRequest>) -> Result<Response<wire::TopResponse>, Status> {
        self.work(request, |engine, namespace, wire::TopRequest { id }| {
            let lines = engine.top(namespace, &id)?;
            Ok(wire::TopResponse { processes: lines.into_iter().map(process_out).collect() })
        })
        .await
    }

    type StatsStream = Answers<wire::StatsResponse>;

    async fn stats(
        &self,
        request: Request<wire::StatsRequest>,
    ) -> Result<Response<Self::StatsStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::StatsRequest { ids, follow, interval_ms } = request.into_inner();
        for id in &ids {
            let (engine, namespace, id) = (self.engine.clone(), namespace.clone(), id.clone());
            blocking(move || engine.container(&namespace, &id)).await?;
        }
        let pause = match interval_ms {
            0 => ROUND,
            given => Duration::from_millis(given.into()).max(ROUND_MIN),
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(pause);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = sender.closed() => return,
                    () = stop.stopping() => return drop(sender.send(Err(stopping())).await),
                }
                let (engine, namespace, ids) = (engine.clone(), namespace.clone(), ids.clone());
                let figures = blocking(move || round(&engine, &namespace, &ids)).await;
                let last = figures.is_err() || !follow;
                if sender.send(figures).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn logs(
        &self,
        request: Request<wire::LogsRequest>,
    ) -> Result<Response<wire::LogsResponse>, Status> {
        self.work(request, |engine, namespace, wire::LogsRequest { id }| {
            let state = engine.container(namespace, &id)?;
            let path = engine.details(namespace, &state).log_path;
            let driver = if path.is_empty() { "none" } else { "json-file" }.to_owned();
            let ended = !matches!(state.status, Process::Running { .. } | Process::Created);
            Ok(wire::LogsResponse { path, driver, ended })
        })
        .await
    }

    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        self.work(request, |engine, namespace, wire::UpdateRequest { id, resources, restart }| {
            engine
                .update_container(namespace, &id, &limits_in(resources), &restart)
                .map(|()| wire::UpdateResponse {})
        })
        .await
    }

    type CopyOutStream = Answers<wire::CopyOutResponse>;

    async fn copy_out(
        &self,
        request: Request<wire::CopyOutRequest>,
    ) -> Result<Response<Self::CopyOutStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = request.into_inner();
        let (sender, receiver) = mpsc::channel(WAITING);
        let engine = self.engine.clone();
        tokio::spawn(async move {
            let client = sender.clone();
            let sent = blocking(move || send_tar(&engine, &namespace, &request, &client)).await;
            if let Err(error) = sent {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn copy_in(
        &self,
        request: Request<Streaming<wire::CopyInRequest>>,
    ) -> Result<Response<wire::CopyInResponse>, Status> {
        use wire::copy_in_request::Part;
        let namespace = namespace(request.metadata())?;
        let mut messages = request.into_inner();
        let late = || Status::deadline_exceeded("no message says where to copy");
        let first = tokio::time::timeout(OPTIONS_WAIT, messages.message()).await.map_err(|_| late())??;
        let Some(wire::CopyInRequest { part: Some(Part::Options(options)) }) = first else {
            return Err(invalid("the first message of a copy must have its options"));
        };
        let (chunks, source) = Source::new();
        tokio::spawn(carry(messages, chunks));
        let engine = self.engine.clone();
        let written = blocking(move || {
            let source: Box<dyn Read + Send> = Box::new(source);
            engine.copy_in(&namespace, &options.id, &options.path, options.keep_owner, source)
        });
        Ok(Response::new(wire::CopyInResponse { bytes: written.await? }))
    }
}
