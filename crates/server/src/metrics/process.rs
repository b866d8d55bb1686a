//! What the system says about this process.
//!
//! The names are those that the Go client library of Prometheus gives every program, because dashboards look for them.
//! `process_*` and `os_fd_*` mean what they always mean. Of `go_*` those that have a counterpart show it; the others stand at
//! 0 (see `quorate_rpc`'s standing metrics):
//!
//! | metric | shows |
//! |---|---|
//! | `go_info`, `etcd_server_go_version` | that there is no Go |
//! | `go_threads`, `go_sched_gomaxprocs_threads` | threads, and processors that they may use |
//! | `go_goroutines` | threads and the tasks of the connection threads |
//! | `go_memstats_alloc_bytes`, `_heap_alloc_bytes`, `_heap_inuse_bytes` | resident memory that no file stands behind |
//! | `go_memstats_heap_sys_bytes`, `_sys_bytes` | mapped memory that is private and writable |
//! | `go_memstats_heap_idle_bytes`, `_heap_released_bytes` | the part of it that is not resident |
//! | `go_memstats_stack_inuse_bytes`, `_stack_sys_bytes` | the stack of the first thread |
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_rpc::Text;
use rustix::process::{Resource, getrlimit};

/// Ticks of a second in `/proc`: `USER_HZ`, which Linux fixes for programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// What Go shows where there is no limit on memory.
const NO_LIMIT: f64 = 9_223_372_036_854_775_807.0;
/// What shows the language's version.
const GO_VERSION: &str = "none (rust)";

/// Writes what the system says.
#[derive(Debug)]
pub(crate) struct ProcessSource {
    started_unix_s: f64,
}

impl ProcessSource {
    /// Begins with the process' start, or with now where the system does not tell.
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = now.unwrap_or_default().as_secs_f64();
        Self {
            started_unix_s: started_unix_s().unwrap_or(now_s),
        }
    }

    /// Writes everything; what the system does not tell is left out.
    pub(crate) fn render(&self, out: &mut Text) {
        self.write_process(out);
        write_files(out);
        write_go(out);
    }

    fn write_process(&self, out: &mut Text) {
        out.known("process_start_time_seconds")
            .float_sample(&[], self.started_unix_s);
        if let Some(ticks) = cpu_ticks() {
            out.known("process_cpu_seconds_total")
                .float_sample(&[], ticks / TICKS_PER_SECOND);
        }
        let status = Status::read();
        for (name, field) in [
            ("process_resident_memory_bytes", "VmRSS"),
            ("process_virtual_memory_bytes", "VmSize"),
        ] {
            if let Some(bytes) = status.bytes(field) {
                out.known(name).float_sample(&[], bytes);
            }
        }
        // Without a limit the client library of Go shows the largest number of 64 bits.
        let limit = getrlimit(Resource::As).current.unwrap_or(u64::MAX);
        out.known("process_virtual_memory_max_bytes")
            .sample(&[], limit);
        if let Some([received, sent]) = network_bytes() {
            out.known("process_network_receive_bytes_total")
                .sample(&[], received);
            out.known("process_network_transmit_bytes_total")
                .sample(&[], sent);
        }
    }
}

fn write_files(out: &mut Text) {
    let limit = open_file_limit();
    for name in ["process_max_fds", "os_fd_limit"] {
        out.known(name).sample(&[], limit);
    }
    // One of them is the listing itself.
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        let open = files.count().saturating_sub(1) as u64;
        for name in ["process_open_fds", "os_fd_used"] {
            out.known(name).sample(&[], open);
        }
    }
}

fn write_go(out: &mut Text) {
    out.known("go_info").sample(&[("version", GO_VERSION)], 1);
    out.known("etcd_server_go_version")
        .sample(&[("server_go_version", GO_VERSION)], 1);
    out.known("go_gc_gomemlimit_bytes")
        .float_sample(&[], NO_LIMIT);
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    out.known("go_sched_gomaxprocs_threads")
        .sample(&[], processors);
    let status = Status::read();
    if let Some(threads) = status.number("Threads") {
        out.known("go_threads").sample(&[], threads);
        out.add("go_goroutines", threads);
    }
    let (Some(used), Some(data), Some(stack)) = (
        status.bytes("RssAnon"),
        status.bytes("VmData"),
        status.bytes("VmStk"),
    ) else {
        return;
    };
    let idle = (data - used).max(0.0);
    for (name, bytes) in [
        ("alloc", used),
        ("heap_alloc", used),
        ("heap_inuse", used),
        ("heap_sys", data),
        ("heap_idle", idle),
        ("heap_released", idle),
        ("stack_inuse", stack),
        ("stack_sys", stack),
        ("sys", data + stack),
    ] {
        out.known(&format!("go_memstats_{name}_bytes"))
            .float_sample(&[], bytes);
    }
}

/// Returns how many files may be open.
pub(crate) fn open_file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The lines of `/proc/self/status`.
struct Status(String);

impl Status {
    fn read() -> Self {
        Self(fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn number(&self, field: &str) -> Option<u64> {
        let named = |line: &'_ str| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned());
        let value = self.0.lines().find_map(named)?;
        value.split_whitespace().next()?.parse().ok()
    }

    /// Returns a size, which the system gives in kilobytes.
    fn bytes(&self, field: &str) -> Option<f64> {
        Some(self.number(field)? as f64 * 1024.0)
    }
}

/// Returns a field of `/proc/self/stat` by the number that proc(5) gives it; those after the name only.
fn stat_field(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name stands in parentheses and may hold blanks; the field after it is the third.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_ticks() -> Option<f64> {
    Some(stat_field(14)? + stat_field(15)?)
}

fn started_unix_s() -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let boot_s: f64 = boot.trim().parse().ok()?;
    Some(boot_s + stat_field(22)? / TICKS_PER_SECOND)
}

/// Returns the bytes received and sent by all that share this process' network, as the client library of Go shows them.
fn network_bytes() -> Option<[u64; 2]> {
    let devices = fs::read_to_string("/proc/self/net/dev").ok()?;
    let mut sums = [0; 2];
    for (_, counts) in devices.lines().filter_map(|line| line.split_once(':')) {
        let counts: Vec<u64> = counts
            .split_whitespace()
            .filter_map(|count| count.parse().ok())
            .collect();
        for (sum, at) in sums.iter_mut().zip([0, 8]) {
            *sum += counts.get(at).copied().unwrap_or(0);
        }
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> f64 {
        let sample = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("{name} in {text}"));
        sample.parse().unwrap()
    }

    #[test]
    fn the_system_says_what_is_plausible() {
        let mut out = Text::default();
        ProcessSource::new().render(&mut out);
        let text = out.finish();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let started = value(&text, "process_start_time_seconds");
        assert!(started <= now.as_secs_f64() + 1.0 && started > now.as_secs_f64() - 86_400.0);
        assert!(value(&text, "process_resident_memory_bytes") > 100_000.0);
        let open = value(&text, "process_open_fds");
        assert!(open >= 3.0 && open < value(&text, "process_max_fds"));
        assert!(value(&text, "go_threads") >= 2.0);
        assert!(value(&text, "go_memstats_heap_sys_bytes") > 0.0);
        assert!(text.contains("go_info{version=\"none (rust)\"} 1"));
    }
}
