//! `containerd.services.tasks.v1`: processes of containers.
//!
//! Each method is one call of the engine, which is one call of the task's shim. Where the engine's answer is not the
//! wire's, it is translated here. [`Wait`](wire::tasks_server::Tasks::wait) holds no thread of the network's: it is told.

use std::borrow::Cow;

use runtime_api::containerd::services::tasks::v1 as wire;
use runtime_engine::{CreateTask, Engine, EngineError, ExecTask, Exit};
use storage_model::Namespace;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::call::{blocking, namespace};
use crate::convert::{descriptor_in, descriptor_out, field, filters};
use crate::status::{status, stopping};
use crate::stop::Stop;

/// The service.
#[derive(Clone)]
pub(crate) struct TasksService {
    engine: Engine,
    stop: Stop,
}

impl TasksService {
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

fn deleted(id: String, exit: Exit) -> wire::DeleteResponse {
    wire::DeleteResponse { id, pid: exit.pid, exit_status: exit.status, exited_at: exit.at }
}

fn create_in(request: wire::CreateTaskRequest) -> Result<CreateTask, Status> {
    Ok(CreateTask {
        rootfs: request.rootfs,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
        checkpoint: request.checkpoint.map(descriptor_in).transpose()?,
        options: request.options,
        runtime_path: request.runtime_path,
    })
}

#[tonic::async_trait]
impl wire::tasks_server::Tasks for TasksService {
    async fn create(
        &self,
        request: Request<wire::CreateTaskRequest>,
    ) -> Result<Response<wire::CreateTaskResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = request.into_inner();
        let container_id = request.container_id.clone();
        let (engine, id, wanted) = (self.engine.clone(), container_id.clone(), create_in(request)?);
        let pid = blocking(move || engine.create_task(&namespace, &id, wanted)).await?;
        Ok(Response::new(wire::CreateTaskResponse { container_id, pid }))
    }

    async fn start(
        &self,
        request: Request<wire::StartRequest>,
    ) -> Result<Response<wire::StartResponse>, Status> {
        self.work(request, |engine, namespace, wire::StartRequest { container_id, exec_id }| {
            let pid = engine.start_process(namespace, &container_id, &exec_id)?;
            Ok(wire::StartResponse { pid })
        })
        .await
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteTaskRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        self.work(request, |engine, namespace, wire::DeleteTaskRequest { container_id }| {
            // containerd leaves the name out here.
            Ok(deleted(String::new(), engine.delete_task(namespace, &container_id)?))
        })
        .await
    }

    async fn delete_process(
        &self,
        request: Request<wire::DeleteProcessRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        self.work(request, |engine, namespace, wire::DeleteProcessRequest { container_id, exec_id }| {
            let exit = engine.delete_exec(namespace, &container_id, &exec_id)?;
            Ok(deleted(exec_id, exit))
        })
        .await
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::GetResponse>, Status> {
        self.work(request, |engine, namespace, wire::GetRequest { container_id, exec_id }| {
            let process = engine.process(namespace, &container_id, &exec_id)?;
            Ok(wire::GetResponse { process: Some(process) })
        })
        .await
    }

    async fn list(
        &self,
        request: Request<wire::ListTasksRequest>,
    ) -> Result<Response<wire::ListTasksResponse>, Status> {
        // containerd does not look at the filter either: it has no fields.
        self.work(request, |engine, namespace, _| {
            Ok(wire::ListTasksResponse { tasks: engine.processes(namespace) })
        })
        .await
    }

    async fn kill(&self, request: Request<wire::KillRequest>) -> Result<Response<()>, Status> {
        self.work(request, |engine, namespace, request| {
            let wire::KillRequest { container_id, exec_id, signal, all } = request;
            engine.signal(namespace, &container_id, &exec_id, signal, all)
        })
        .await
    }

    async fn exec(&self, request: Request<wire::ExecProcessRequest>) -> Result<Response<()>, Status> {
        self.work(request, |engine, namespace, request| {
            let wanted = ExecTask {
                exec_id: request.exec_id,
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                spec: request.spec,
            };
            engine.exec_task(namespace, &request.container_id, wanted)
        })
        .await
    }

    async fn resize_pty(&self, request: Request<wire::ResizePtyRequest>) -> Result<Response<()>, Status> {
        self.work(request, |engine, namespace, request| {
            let wire::ResizePtyRequest { container_id, exec_id, width, height } = request;
            engine.resize_terminal(namespace, &container_id, &exec_id, width, height)
        })
        .await
    }

    async fn close_io(&self, request: Request<wire::CloseIoRequest>) -> Result<Response<()>, Status> {
        self.work(request, |engine, namespace, wire::CloseIoRequest { container_id, exec_id, stdin }| {
            if stdin { engine.close_input(namespace, &container_id, &exec_id) } else { Ok(()) }
        })
        .await
    }

    async fn pause(&self, request: Request<wire::PauseTaskRequest>) -> Result<Response<()>, Status> {
        self.work(request, |engine, namespace, request| engine.pause_task(namespace, &request.container_id))
            .await
    }

    async fn resume(&self, request: Request<wire::ResumeTaskRequest>) -> Result<Response<()>, Status> {
        self.work(request, |engine, namespace, request| engine.resume_task(namespace, &request.container_id))
            .await
    }

    async fn list_pids(
        &self,
        request: Request<wire::ListPidsRequest>,
    ) -> Result<Response<wire::ListPidsResponse>, Status> {
        self.work(request, |engine, namespace, wire::ListPidsRequest { container_id }| {
            let processes = engine.task_pids(namespace, &container_id)?;
            Ok(wire::ListPidsResponse { processes })
        })
        .await
    }

    async fn checkpoint(
        &self,
        request: Request<wire::CheckpointTaskRequest>,
    ) -> Result<Response<wire::CheckpointTaskResponse>, Status> {
        self.work(request, |engine, namespace, request| {
            let made = engine.checkpoint_task(namespace, &request.container_id, request.options)?;
            let descriptors = made.into_iter().map(descriptor_out).collect();
            Ok(wire::CheckpointTaskResponse { descriptors })
        })
        .await
    }

    async fn update(&self, request: Request<wire::UpdateTaskRequest>) -> Result<Response<()>, Status> {
        self.work(request, |engine, namespace, request| {
            let wire::UpdateTaskRequest { container_id, resources, annotations } = request;
            engine.update_task(namespace, &container_id, resources, annotations)
        })
        .await
    }

    async fn metrics(
        &self,
        request: Request<wire::MetricsRequest>,
    ) -> Result<Response<wire::MetricsResponse>, Status> {
        let filters = filters(&request.get_ref().filters)?;
        self.work(request, move |engine, namespace, _| {
            let of = namespace.to_string();
            let wanted = |id: &str| {
                filters.matches(|path| match path[0].as_str() {
                    "id" => field(id).map(|id| Cow::from(id.into_owned())),
                    "namespace" => Some(Cow::from(of.as_str())),
                    _ => None,
                })
            };
            Ok(wire::MetricsResponse { metrics: engine.task_metrics(namespace, wanted) })
        })
        .await
    }

    async fn wait(
        &self,
        request: Request<wire::WaitRequest>,
    ) -> Result<Response<wire::WaitResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::WaitRequest { container_id, exec_id } = request.into_inner();
        let (sender, receiver) = oneshot::channel();
        let engine = self.engine.clone();
        blocking(move || {
            // A client that has gone does not listen.
            let waiter = Box::new(move |outcome| drop(sender.send(outcome)));
            engine.when_ended(&namespace, &container_id, &exec_id, waiter)
        })
        .await?;
        let outcome = tokio::select! {
            outcome = receiver => outcome.map_err(|_| Status::internal("a task went without a word"))?,
            () = self.stop.stopping() => return Err(stopping()),
        };
        let exit = outcome.map_err(|error| status(EngineError::from(error)))?;
        Ok(Response::new(wire::WaitResponse { exit_status: exit.status, exited_at: exit.at }))
    }
}
