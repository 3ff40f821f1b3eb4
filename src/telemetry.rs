//! Logs and metrics of this process. Installed once, before anything else runs.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogFormat;

/// Bounds of latency histograms, in seconds: from one sync of a fast disk to the request deadline.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Whatever the filter says: what would log bodies of messages at debug, and three lines for every request at info.
const QUIET: &str = "rmcp=error";

/// The filter of `AGENTCHAT_LOG` does not parse.
#[derive(Debug, thiserror::Error)]
#[error("settings: log filter {0:?} is not valid, try `info` or `info,agentchat=debug`")]
pub struct BadFilter(String, #[source] ParseError);

/// Starts logging to standard error.
pub fn logs(filter: &str, format: LogFormat) -> Result<(), BadFilter> {
    let parsed =
        EnvFilter::try_new(format!("{filter},{QUIET}")).map_err(|error| BadFilter(filter.to_owned(), error))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("a subscriber was installed before"); // several nodes in one test process share it
    }
    Ok(())
}

/// Starts counting; the handle renders `/metrics`.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if ::metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("a recorder was installed before");
    }
    schema::metrics::describe();
    cluster::metrics::describe();
    actors::metrics::describe();
    crate::metrics::describe();
    Ok(handle)
}
