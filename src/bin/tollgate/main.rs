//! `tollgate`: sends a file of requests to an LLM API as fast as its rate limits allow, imitates such an API, finds out why
//! calls fail, and shows what is known of the limits.

mod args;
mod clock;
mod doctor;
mod known;
mod limits;
mod mock;
mod probe;
mod run;
mod show;
mod stop;
mod target;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

/// What the program's exit code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Everything that was asked for is done.
    Done = 0,
    /// Some rows failed.
    Failed = 1,
    /// The arguments, the configuration or the input are wrong, or a file cannot be used.
    Unusable = 2,
    /// `doctor`: the provider fails.
    Provider = 10,
    /// `doctor`: the key is missing or not accepted.
    Key = 11,
    /// `doctor`: a limit is reached, or lower than configured.
    Limits = 12,
    /// `doctor`: there is no credit.
    Billing = 13,
    /// `doctor`: the provider cannot be reached.
    Network = 14,
    /// `doctor`: this machine's clock is off.
    Clock = 15,
    /// `doctor`: the request is wrong.
    Request = 16,
    /// Stopped by Ctrl-C or SIGTERM.
    Interrupted = 130,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let exit = runtime().and_then(|runtime| {
        let exit = runtime.block_on(async {
            match args.command {
                Command::Run(args) => run::run(*args).await,
                Command::Mock(args) => mock::serve(*args).await,
                Command::Doctor(args) => doctor::run(*args).await,
                Command::Limits(args) => limits::run(*args).await,
            }
        });
        // Nobody waits for what is still under way after a second Ctrl-C.
        runtime.shutdown_background();
        exit
    });
    ExitCode::from(exit.unwrap_or_else(|error| {
        show::error(&error);
        Exit::Unusable
    }) as u8)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
