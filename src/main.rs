//! The `agentchat` binary: command line in, exit code out.

#![expect(unreachable_pub, reason = "a binary has no outside: `pub` means used by other modules")]

mod admin;
mod app;
mod backup;
mod cli;
mod clock;
mod config;
mod dashboard;
mod doctor;
mod http;
mod identity;
mod limits;
mod mail;
mod mcp;
mod membership;
mod memo;
mod metrics;
mod node;
mod objects;
mod openapi;
mod queries;
mod reference;
mod shared;
mod telemetry;
mod webhooks;
mod wire;
mod ws;

use std::process::ExitCode;

use clap::Parser;

/// Thousands of small allocations per message burst: a size-class allocator keeps their cost and fragmentation down.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}
