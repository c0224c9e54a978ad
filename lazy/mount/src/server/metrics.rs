//! Counters of a server as Prometheus reads them (text exposition format 0.0.4).

use std::fmt::Write;

use super::Server;
use crate::session::Counts;

/// Name, kind, help, value.
type Series = (&'static str, &'static str, &'static str, fn(&Counts) -> u64);

/// What is counted for each mount.
const SERIES: [Series; 5] = [
    ("requests_total", "counter", "Requests of the kernel, since this server started.", |counts| {
        counts.requests
    }),
    ("requests_in_flight", "gauge", "Requests at work or in line.", |counts| counts.in_flight),
    ("reads_total", "counter", "Reads that reached the server.", |counts| counts.reads),
    ("read_bytes_total", "counter", "Bytes given to the kernel.", |counts| counts.read_bytes),
    ("failed_reads_total", "counter", "Reads answered with an error.", |counts| counts.failed_reads),
];

impl Server {
    /// Those of the mounts, then those of the fetcher.
    pub(super) fn metrics(&self) -> String {
        let mounts: Vec<_> = self.table.all().into_iter().filter(|(held, _, _)| held.named).collect();
        let mut text = String::new();
        let mut line = |words: std::fmt::Arguments<'_>| {
            writeln!(text, "{words}").expect("writing to a String cannot fail");
        };
        line(format_args!("# HELP windlass_lazy_mounts Lazy mounts.\n# TYPE windlass_lazy_mounts gauge"));
        line(format_args!("windlass_lazy_mounts {}", mounts.len()));
        for (name, kind, help, value) in SERIES {
            line(format_args!("# HELP windlass_lazy_{name} {help}\n# TYPE windlass_lazy_{name} {kind}"));
            for (held, _, serving) in &mounts {
                let counts = serving.as_ref().map(|serving| serving.session.counts()).unwrap_or_default();
                // A name has no character that would have to be escaped.
                line(format_args!(
                    "windlass_lazy_{name}{{mount=\"{}\"}} {}",
                    held.request.name,
                    value(&counts)
                ));
            }
        }
        if let Ok(fetcher) = &self.fetcher {
            text.push_str(&fetcher.metrics());
        }
        text
    }
}
