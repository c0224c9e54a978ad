//! Making tasks and taking them away, and finding them again.
//!
//! ```text
//! claim -> bundle -> shim's `start` -> connect -> Create -> taken --Delete--> claim -> Shutdown -> bundle gone -> free
//!                                                             \--shim died--> claim -> shim's `delete` -> events -> bundle gone -> free
//! ```
//! A failure on the way to `taken` takes everything back. Whoever turns `taken` into a claim takes the task away, so it
//! is done once, by a caller of Delete or by the thread that watches the shim.

use std::io::PipeReader;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use runtime_api::containerd::task::v2 as wire;
use runtime_api::containerd::types::Mount;
use storage_model::Namespace;
use storage_sys::process::{Watch, poll};

use super::TaskError;
use super::bundle::{Bundle, Note, TASKS};
use super::event::{EventSink, Events};
use super::link::{Address, Link};
use super::live::{Exit, THREAD_STACK_BYTES, Task};
use super::program::{Call, Host, Program};
use super::second::Seconds;
use super::table::{Claim, Table};

/// Tasks whose shims are asked at the same time when a daemon starts.
const RECOVERED_AT_ONCE: usize = 16;

/// Hears of a task whose first process has ended, and for how long it was known.
pub(crate) type EndSink = Box<dyn Fn(&Namespace, &str, &Exit, Duration) + Send + Sync>;

/// A task to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewTask {
    /// Name of the runtime, or path of a shim.
    pub(crate) runtime: String,
    /// The OCI spec, JSON.
    pub(crate) spec: Vec<u8>,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
    /// Directory of a checkpoint to restore; none when empty.
    pub(crate) checkpoint: String,
    pub(crate) options: Option<Any>,
}

/// All tasks of an engine. Clones are one.
#[derive(Clone)]
pub(crate) struct Manager(Arc<Inner>);

struct Inner {
    state: PathBuf,
    host: Host,
    table: Table,
    events: Events,
    seconds: Seconds,
    ended: Mutex<Option<Arc<EndSink>>>,
}

impl Manager {
    pub(crate) fn new(state: &Path, host: Host) -> Self {
        Self(Arc::new(Inner {
            state: state.to_owned(),
            host,
            table: Table::default(),
            events: Events::default(),
            seconds: Seconds::default(),
            ended: Mutex::default(),
        }))
    }

    pub(super) fn table(&self) -> &Table {
        &self.0.table
    }

    /// Has `sink` hear what shims cannot tell any more.
    pub(crate) fn tell_events(&self, sink: EventSink) {
        self.0.events.listen(sink);
    }

    /// Has `sink` called for every task whose first process ends from now on.
    pub(crate) fn tell_ends(&self, sink: EndSink) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(sink));
    }

    /// What speaks the shim protocol for the container of `windlass run` in `bundle`.
    ///
    /// # Errors
    /// [`TaskError::Shim`] if it does not run.
    pub(super) fn second(
        &self,
        namespace: &Namespace,
        id: &str,
        bundle: &Path,
    ) -> Result<Arc<Link>, TaskError> {
        self.0.seconds.of(namespace, id, bundle, &self.0.host)
    }

    /// Ends that, once the container has.
    pub(crate) fn end_second(&self, namespace: &Namespace, id: &str, bundle: &Path) {
        self.0.seconds.end(namespace, id, bundle);
    }

    /// Whether the container has a task (of containerd's clients).
    pub(crate) fn has(&self, namespace: &Namespace, id: &str) -> bool {
        self.0.table.get(namespace, id).is_ok()
    }

    /// What happens to containers without a task, told as of one.
    pub(crate) fn events(&self) -> &Events {
        &self.0.events
    }

    /// The directory of a task, which need not be there.
    pub(crate) fn directory(&self, namespace: &Namespace, id: &str) -> PathBuf {
        self.bundle(namespace, id).path
    }

    fn bundle(&self, namespace: &Namespace, id: &str) -> Bundle {
        Bundle::at(&self.0.state, namespace.as_str(), id)
    }

    fn call<'a>(&'a self, namespace: &'a Namespace, bundle: &'a Bundle) -> Call<'a> {
        Call { namespace: namespace.as_str(), id: &bundle.id, bundle: &bundle.path, host: &self.0.host }
    }

    /// Makes a task; its first process waits for its start. Returns that process's id.
    ///
    /// # Errors
    /// [`TaskError`]; nothing of the task is left then.
    pub(crate) fn create(&self, namespace: &Namespace, id: &str, new: NewTask) -> Result<u32, TaskError> {
        let claim = self.0.table.claim(namespace, id)?;
        let program = Program::find(&new.runtime, &self.0.host)?;
        let bundle = self.bundle(namespace, id);
        // What a task that could not be removed left.
        bundle.remove()?;
        let begun = self.begin(namespace, &bundle, &program, new);
        let (link, greeting) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.undo(&bundle);
                return Err(error);
            }
        };
        self.watch(claim, namespace, bundle, program, link, &greeting)?;
        Ok(greeting.task_pid)
    }

    /// Everything up to a created task.
    fn begin(
        &self,
        namespace: &Namespace,
        bundle: &Bundle,
        program: &Program,
        new: NewTask,
    ) -> Result<(Link, wire::ConnectResponse), TaskError> {
        let mut note = Note { program: program.clone(), address: None, version: 2 };
        bundle.create(&new.spec, &note)?;
        let options = program.options(new.options);
        let said = program.start(self.call(namespace, bundle), options.as_ref())?;
        let Some(address) = Address::parse(&said) else {
            let words = format!("it printed no address: {}", String::from_utf8_lossy(&said).trim());
            let (id, program) = (bundle.id.clone(), program.path.clone());
            return Err(TaskError::Program { id, program, what: "start", words });
        };
        (note.address, note.version) = (Some(address.address.clone()), address.version);
        bundle.write_note(&note)?;
        let link = Link::connect(namespace.as_str(), &bundle.id, &address.address, address.version)?;
        let request = wire::CreateTaskRequest {
            id: bundle.id.clone(),
            bundle: bundle.path.display().to_string(),
            rootfs: new.rootfs,
            terminal: new.terminal,
            stdin: new.stdin,
            stdout: new.stdout,
            stderr: new.stderr,
            checkpoint: new.checkpoint,
            parent_checkpoint: String::new(),
            options,
        };
        let created = link.work::<wire::CreateTaskResponse>("Create", &request);
        let greeted = created.and_then(|_| link.greet());
        match greeted {
            Ok(greeting) => Ok((link, greeting)),
            Err(error) => {
                // Of a task that it could not make it has nothing, as a rule; it ends if it has no other.
                let _ = link.delete("");
                link.shutdown(false);
                Err(error)
            }
        }
    }

    /// Takes away what is left of a task that could not be made.
    fn undo(&self, bundle: &Bundle) {
        if let Err(error) = bundle.remove() {
            tracing::warn!(%error, id = %bundle.id, "a task that could not be made left something behind");
        }
    }

    /// Puts a task into the table, and a thread beside it that watches it.
    fn watch(
        &self,
        claim: Claim,
        namespace: &Namespace,
        bundle: Bundle,
        program: Program,
        link: Link,
        greeting: &wire::ConnectResponse,
    ) -> Result<(), TaskError> {
        let (task, kept) = Task::new(namespace, bundle, program, link, greeting)?;
        claim.fill(task.clone());
        let manager = self.clone();
        let (name, path) = ("task-watch".to_owned(), task.bundle.path.clone());
        let thread = std::thread::Builder::new().name(name).stack_size(THREAD_STACK_BYTES);
        thread
            .spawn(move || manager.watched(&task, &kept))
            .map(drop)
            .map_err(TaskError::io("start the thread that watches", path))
    }

    /// Waits for the end of the first process, then for that of the shim.
    fn watched(&self, task: &Arc<Task>, kept: &PipeReader) {
        if let Ok(answer) = task.link.wait("") {
            let exit = Exit { pid: task.init_pid, status: answer.exit_status, at: answer.exited_at };
            self.end(task, exit);
        }
        if let Some(shim) = &task.shim {
            let mut watches = [Watch::readable(shim.as_fd()), Watch::readable(kept.as_fd())];
            // Only memory can be lacking; then the shim is asked once more by whoever comes next.
            if poll(&mut watches, None).is_err() || !watches[0].is_ready() {
                return;
            }
        }
        self.bury(task);
    }

    fn end(&self, task: &Task, exit: Exit) {
        if !task.set_exit(exit.clone()) {
            return;
        }
        let sink = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sink) = sink {
            sink(&task.namespace, task.id(), &exit, task.age());
        }
    }

    /// Takes an ended task away and returns how it ended.
    ///
    /// # Errors
    /// [`TaskError::Shim`] if the shim refuses: the process runs. Then the task stays.
    pub(crate) fn delete(&self, namespace: &Namespace, id: &str) -> Result<Exit, TaskError> {
        let task = self.0.table.get(namespace, id)?;
        let answer = match task.link.delete("") {
            Err(error) if error.is_gone() => {
                return self.bury(&task).ok_or(TaskError::NoTask { id: id.to_owned() });
            }
            Err(error) if error.kind() != storage_content::ErrorKind::NotFound => return Err(error),
            answer => answer,
        };
        let Some(_claim) = self.0.table.reclaim(&task) else {
            return answer.map(Exit::from);
        };
        if let Ok(answer) = &answer {
            self.end(&task, (*answer).into());
        }
        task.leave();
        task.link.shutdown(false);
        task.bundle.remove()?;
        answer.map(Exit::from)
    }

    /// Takes away a task whose shim died; how it ended, or `None` if somebody else did it.
    fn bury(&self, task: &Arc<Task>) -> Option<Exit> {
        let _claim = self.0.table.reclaim(task)?;
        tracing::warn!(id = task.id(), namespace = %task.namespace, "the shim of a task died");
        task.leave();
        let known = task.exit().cloned();
        let told = self.clean(&task.namespace, &task.bundle, &task.program);
        task.kill_init();
        let exit = known.clone().or(told).unwrap_or_else(|| Exit::killed_now(task.init_pid));
        if known.is_none() {
            self.0.events.exited(&task.namespace, task.id(), &exit);
        }
        self.0.events.deleted(&task.namespace, task.id(), &exit);
        self.end(task, exit.clone());
        Some(exit)
    }

    /// Calls the shim's program for what a dead shim left, then removes the bundle.
    fn clean(&self, namespace: &Namespace, bundle: &Bundle, program: &Program) -> Option<Exit> {
        let answer = program.delete(self.call(namespace, bundle));
        let answer = answer.map_err(|error| {
            let words = bundle.last_words();
            tracing::warn!(%error, id = %bundle.id, words, "what a dead shim left could not be deleted by its program");
        });
        self.undo(bundle);
        // Without a time the program has nothing to say.
        let answer = wire::DeleteResponse::decode(answer.ok()?.as_slice()).ok()?;
        answer.exited_at.is_some().then(|| answer.into())
    }

    /// Finds the tasks of an earlier daemon again: those whose shims answer go on, the others are taken away and told.
    pub(crate) fn recover(&self) {
        let mut found = Vec::new();
        for (name, path) in directories(&self.0.state.join(TASKS)) {
            let Ok(namespace) = name.parse::<Namespace>() else { continue };
            found.extend(directories(&path).into_iter().map(|(id, _)| (namespace.clone(), id)));
        }
        for some in found.chunks(RECOVERED_AT_ONCE) {
            std::thread::scope(|scope| {
                for (namespace, id) in some {
                    scope.spawn(|| self.recover_one(namespace, id));
                }
            });
        }
    }

    fn recover_one(&self, namespace: &Namespace, id: &str) {
        let bundle = self.bundle(namespace, id);
        let Ok(claim) = self.0.table.claim(namespace, id) else { return };
        let note = match bundle.note() {
            Ok(Some(note)) => note,
            Ok(None) => return self.undo(&bundle),
            Err(error) => {
                tracing::warn!(%error, %id, "a task of an earlier daemon is left as it is");
                return;
            }
        };
        let link = note
            .address
            .as_deref()
            .map(|address| Link::connect(namespace.as_str(), id, address, note.version));
        let Some(link) = link else {
            self.clean(namespace, &bundle, &note.program);
            return;
        };
        match link.and_then(|link| link.greet().map(|greeting| (link, greeting))) {
            Ok((link, greeting)) if greeting.task_pid != 0 => {
                if let Err(error) = self.watch(claim, namespace, bundle, note.program, link, &greeting) {
                    tracing::warn!(%error, %id, "a task of an earlier daemon is not watched");
                }
            }
            // The shim is there, but the daemon died before the task was.
            Ok((link, _)) => self.abandon(namespace, &bundle, &note.program, &link),
            Err(error) if error.is_gone() => {
                let exit = self.clean(namespace, &bundle, &note.program);
                let exit = exit.unwrap_or_else(|| Exit::killed_now(0));
                self.0.events.exited(namespace, id, &exit);
                self.0.events.deleted(namespace, id, &exit);
            }
            Err(error) => {
                tracing::warn!(%error, %id, "the shim of a task of an earlier daemon refuses to answer");
                if let Ok(link) = Link::connect(
                    namespace.as_str(),
                    id,
                    note.address.as_deref().unwrap_or_default(),
                    note.version,
                ) {
                    self.abandon(namespace, &bundle, &note.program, &link);
                }
            }
        }
    }

    fn abandon(&self, namespace: &Namespace, bundle: &Bundle, program: &Program, link: &Link) {
        let _ = link.delete("");
        link.shutdown(false);
        self.clean(namespace, bundle, program);
    }
}

/// Names and paths of the directories in a directory; none if it is not there.
fn directories(path: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}
