//! Tasks: the processes of containers, each under a shim that speaks containerd's shim protocol.
//!
//! Our own shim and the stock ones are the same here: a program with two commands (`start`, `delete`) and a socket. The
//! shim outlives the daemon, the task's directory tells the next daemon where it is; so a daemon may die at any moment,
//! and the next one goes on with every task whose shim answers. A shim that died takes its task along: it is ended, taken
//! away and told to whoever listens, within moments.
//!
//! What happens to a task is published by its shim, over the daemon's ttrpc socket. Calls here block.
//!
//! Not here: records of containers (`storage-content`), what a spec says (`runtime-container`), the wire of clients
//! (`runtime-daemon`).

mod bundle;
mod checkpoint;
mod error;
mod event;
mod link;
mod live;
mod manager;
mod process;
mod program;
mod second;
mod table;

pub use error::TaskError;
pub use event::EventSink;
pub use live::{Exit, Waiter};
pub(crate) use manager::{Manager, NewTask};
pub use process::{CreateTask, ExecTask};
pub(crate) use program::Host;
pub use program::{OWN_RUNTIME, STOCK_RUNTIME, ttrpc_address};
