//! What happened, as numbers for Prometheus (text exposition format 0.0.4).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::Cache;

/// Upper bounds of the buckets for waits, in milliseconds.
const WAIT_BUCKETS_MS: [u64; 10] = [1, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000];

/// Counters of a fetcher.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) hits: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) broken_transfers: AtomicU64,
    pub(crate) wrong_groups: AtomicU64,
    remote_bytes: AtomicU64,
    local_bytes: AtomicU64,
    failures: AtomicU64,
    /// Not cumulative; the last is for longer ones.
    waits: [AtomicU64; WAIT_BUCKETS_MS.len() + 1],
    waited_us: AtomicU64,
}

impl Metrics {
    /// Bytes arrived.
    pub(crate) fn received(&self, bytes: u64, local: bool) {
        let counter = if local { &self.local_bytes } else { &self.remote_bytes };
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A read waited, and perhaps failed.
    pub(crate) fn fault(&self, wait: Duration, failed: bool) {
        let ms = wait.as_millis();
        let bucket = WAIT_BUCKETS_MS.iter().position(|bound| ms <= u128::from(*bound));
        self.waits[bucket.unwrap_or(WAIT_BUCKETS_MS.len())].fetch_add(1, Ordering::Relaxed);
        self.waited_us.fetch_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The text.
    pub(crate) fn text(&self, cache: &Cache, images: usize) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut text = String::with_capacity(4096);
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            let name = format!("windlass_lazy_{name}");
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
                .expect("a String takes it");
        };
        one("images", "gauge", "Images that are open.", images as u64);
        one("hits_total", "counter", "Reads served from the cache alone.", get(&self.hits));
        one("requests_total", "counter", "Ranges asked for.", get(&self.requests));
        one("received_bytes_total", "counter", "Bytes received over the network.", get(&self.remote_bytes));
        one("local_bytes_total", "counter", "Bytes read from local blobs.", get(&self.local_bytes));
        one("read_failures_total", "counter", "Reads that failed.", get(&self.failures));
        one(
            "broken_transfers_total",
            "counter",
            "Requests that failed or broke off.",
            get(&self.broken_transfers),
        );
        one(
            "wrong_groups_total",
            "counter",
            "Pieces that arrived with wrong bytes.",
            get(&self.wrong_groups),
        );
        one("cache_bytes", "gauge", "Bytes in the cache.", cache.bytes());
        one("cache_damaged_total", "counter", "Chunks in the cache found damaged.", get(&cache.damaged));
        one("cache_evicted_bytes_total", "counter", "Bytes given up for others.", get(&cache.evicted_bytes));
        one(
            "cache_uncached_bytes_total",
            "counter",
            "Bytes served without being kept.",
            get(&cache.uncached_bytes),
        );
        self.histogram(&mut text);
        text
    }

    fn histogram(&self, text: &mut String) {
        let name = "windlass_lazy_fault_wait_seconds";
        let mut line = |line: String| writeln!(text, "{line}").expect("a String takes it");
        line(format!(
            "# HELP {name} How long reads waited for bytes that were not here.\n# TYPE {name} histogram"
        ));
        let mut count = 0;
        for (number, waits) in self.waits.iter().enumerate() {
            count += waits.load(Ordering::Relaxed);
            let bound = WAIT_BUCKETS_MS.get(number).map(|ms| (*ms as f64 / 1e3).to_string());
            line(format!("{name}_bucket{{le=\"{}\"}} {count}", bound.unwrap_or_else(|| "+Inf".to_owned())));
        }
        line(format!("{name}_sum {}", self.waited_us.load(Ordering::Relaxed) as f64 / 1e6));
        line(format!("{name}_count {count}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_as_prometheus_wants_them() {
        let metrics = Metrics::default();
        for ms in [0, 1, 2, 30, 40_000] {
            metrics.fault(Duration::from_millis(ms), ms == 30);
        }
        let mut text = String::new();
        metrics.histogram(&mut text);
        for line in [
            "{le=\"0.001\"} 2",
            "{le=\"0.005\"} 3",
            "{le=\"0.05\"} 4",
            "{le=\"30\"} 4",
            "{le=\"+Inf\"} 5",
            "count 5",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
