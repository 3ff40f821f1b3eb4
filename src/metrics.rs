//! What the gateway counts, and the process as the system sees it: names, units, help. Every name is here, and nowhere
//! else; the other crates have a file like this one for theirs.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// Answers by `route`, `method`, `status`.
pub const HTTP_REQUESTS: &str = "agentchat_http_requests_total";
/// From a request's head to its answer's head, by `route`.
pub const HTTP_SECONDS: &str = "agentchat_http_request_seconds";
/// Requests by known `client`.
pub const HTTP_CLIENTS: &str = "agentchat_http_clients_total";
/// Agents' sockets that are open.
pub const SOCKETS: &str = "agentchat_sockets";
/// Sockets of owners' pages that are open.
pub const DASHBOARD_SOCKETS: &str = "agentchat_dashboard_sockets";
/// Sockets closed by us, by `code`.
pub const SOCKET_CLOSES: &str = "agentchat_socket_closes_total";
/// Frames from and to agents.
pub const FRAMES_IN: &str = "agentchat_frames_in_total";
pub const FRAMES_OUT: &str = "agentchat_frames_out_total";
/// Notices for webhooks that no queue had room for.
pub const WEBHOOK_DROPPED: &str = "agentchat_webhook_dropped_total";
/// Notices given up after the last attempt.
pub const WEBHOOK_DEAD_LETTERS: &str = "agentchat_webhook_dead_letters_total";
/// Attempts by `outcome`.
pub const WEBHOOK_ATTEMPTS: &str = "agentchat_webhook_attempts_total";
/// 1 while Redis answers, 0 while every node judges alone.
pub const REDIS_UP: &str = "agentchat_redis_up";
/// Calls of Redis, by `purpose`.
pub const REDIS_SECONDS: &str = "agentchat_redis_seconds";
/// Calls of Redis without an answer, by `purpose`.
pub const REDIS_ERRORS: &str = "agentchat_redis_errors_total";
/// Presence asked for in bulk, by `outcome`.
pub const PRESENCE_SNAPSHOTS: &str = "agentchat_presence_snapshots_total";
/// Snapshots of presence that were not shown because too many waited.
pub const PRESENCE_DROPPED: &str = "agentchat_presence_snapshots_dropped_total";
/// 1, with the `version` that runs.
const BUILD_INFO: &str = "agentchat_build_info";
/// 1 from SIGTERM on.
const DRAINING: &str = "agentchat_draining";
/// Memory of the process.
const PROCESS_RESIDENT: &str = "agentchat_process_resident_bytes";
/// Open files, sockets among them, and how many there may be.
const PROCESS_FILES: &str = "agentchat_process_open_files";
const PROCESS_FILES_MAX: &str = "agentchat_process_open_files_max";

/// Tells the recorder what these are. Counters without labels exist from here on, so that a first event is a change.
pub fn describe() {
    describe_counter!(HTTP_REQUESTS, Unit::Count, "Answers by route, method and status");
    describe_histogram!(HTTP_SECONDS, Unit::Seconds, "From the head of a request to the head of its answer, by route");
    describe_counter!(HTTP_CLIENTS, Unit::Count, "Requests by known client");
    describe_gauge!(SOCKETS, Unit::Count, "Sockets of agents that are open");
    describe_gauge!(DASHBOARD_SOCKETS, Unit::Count, "Sockets of owners' pages that are open");
    describe_counter!(SOCKET_CLOSES, Unit::Count, "Sockets closed by the server, by code");
    describe_counter!(FRAMES_IN, Unit::Count, "Frames from agents");
    describe_counter!(FRAMES_OUT, Unit::Count, "Frames to agents");
    describe_counter!(WEBHOOK_DROPPED, Unit::Count, "Notices for webhooks that no queue had room for");
    describe_counter!(WEBHOOK_DEAD_LETTERS, Unit::Count, "Notices for webhooks given up after the last attempt");
    describe_counter!(WEBHOOK_ATTEMPTS, Unit::Count, "Attempts to deliver to webhooks, by outcome");
    describe_gauge!(REDIS_UP, Unit::Count, "1 while Redis answers, 0 while every node judges alone");
    describe_histogram!(REDIS_SECONDS, Unit::Seconds, "Calls of Redis, by purpose");
    describe_counter!(REDIS_ERRORS, Unit::Count, "Calls of Redis without an answer, by purpose");
    describe_counter!(PRESENCE_SNAPSHOTS, Unit::Count, "Presence asked for in bulk, by outcome");
    describe_counter!(PRESENCE_DROPPED, Unit::Count, "Snapshots of presence not shown because too many waited");
    describe_gauge!(BUILD_INFO, Unit::Count, "1, with the version that runs");
    describe_gauge!(DRAINING, Unit::Count, "1 from SIGTERM on");
    describe_gauge!(PROCESS_RESIDENT, Unit::Bytes, "Memory of the process");
    describe_gauge!(PROCESS_FILES, Unit::Count, "Open files, sockets among them");
    describe_gauge!(PROCESS_FILES_MAX, Unit::Count, "How many files may be open");
    for name in [FRAMES_IN, FRAMES_OUT, WEBHOOK_DROPPED, WEBHOOK_DEAD_LETTERS, PRESENCE_DROPPED] {
        counter!(name).increment(0);
    }
    gauge!(SOCKETS).increment(0.0);
    gauge!(DASHBOARD_SOCKETS).increment(0.0);
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Reads what is only known when somebody asks.
pub fn observe(draining: bool) {
    gauge!(DRAINING).set(f64::from(u8::from(draining)));
    if let Some(bytes) = resident_bytes() {
        gauge!(PROCESS_RESIDENT).set(bytes as f64);
    }
    if let Some(count) = open_files() {
        gauge!(PROCESS_FILES).set(count as f64);
    }
    if let Some(most) = open_files_max() {
        gauge!(PROCESS_FILES_MAX).set(most as f64);
    }
}

/// Memory of this process in bytes; `None` where the system does not tell.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Files that are open.
fn open_files() -> Option<usize> {
    std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}

/// The soft limit of open files; `None` where the system does not tell.
pub fn open_files_max() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_sees_itself() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        let (open, most) = (open_files().unwrap(), open_files_max().unwrap());
        assert!(open >= 3 && (open as u64) <= most, "{open} of {most}");
    }
}
