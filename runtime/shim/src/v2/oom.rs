//! `TaskOOM`: the kernel has killed a process of the container for want of memory.
//!
//! A thread a container waits for the kernel's notice while it runs; at its end the count is read once more, so that the
//! event of a kill that ended the container comes before the event of its end.
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runtime_api::containerd::events::TaskOom;
use storage_sys::oom::OomWatch;

use super::cgroup::Cgroup;
use super::container::Container;
use super::publisher::Publisher;

/// How many kills have been told.
pub(crate) type Told = Arc<AtomicU64>;

/// Waits for kills until the container's cgroup is gone. Where the kernel gives no notice, the end alone tells.
pub(crate) fn watch(container: &Container, publisher: &Arc<Publisher>) {
    let Some(cgroup) = container.cgroup() else { return };
    let watch = match (cgroup.v1.get("memory"), &cgroup.v2) {
        (Some(memory), _) => OomWatch::v1(memory),
        (None, Some(unified)) => OomWatch::v2(unified),
        (None, None) => return,
    };
    let Ok(mut watch) = watch else { return };
    let (id, told, publisher) =
        (container.id.clone(), Arc::clone(&container.oom_told), Arc::clone(publisher));
    // Without the thread, the end alone tells.
    let _ =
        super::thread("oom", move || while watch.wait().is_ok() && tell(&id, &cgroup, &told, &publisher) {});
}

/// Tells kills that nobody has told, at the end of a container.
pub(crate) fn tell_last(container: &Container, publisher: &Publisher) {
    if let Some(cgroup) = container.cgroup() {
        tell(&container.id, &cgroup, &container.oom_told, publisher);
    }
}

/// Tells if there is something new. False when the cgroup is gone.
fn tell(id: &str, cgroup: &Cgroup, told: &AtomicU64, publisher: &Publisher) -> bool {
    let Some(kills) = kills(cgroup) else { return false };
    if told.fetch_max(kills, Ordering::Relaxed) < kills {
        publisher.publish("/tasks/oom", &TaskOom { container_id: id.to_owned() });
    }
    true
}

fn kills(cgroup: &Cgroup) -> Option<u64> {
    let path = match (cgroup.v1.get("memory"), &cgroup.v2) {
        (Some(memory), _) => memory.join("memory.oom_control"),
        (None, Some(unified)) => unified.join("memory.events"),
        (None, None) => return None,
    };
    let text = fs::read_to_string(path).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Some(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
}
