//! The server binary.
use std::process::ExitCode;

mod allocator;

use quorate_server::config::{self, Loaded};
use quorate_server::log::{Level, Logger, Options, Record};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    allocator::configure();
    let (config, notices) = match config::load(std::env::args_os(), std::env::vars_os()) {
        Loaded::Start { config, notices } => (config, notices),
        Loaded::Exit(exit) => return exit.run(),
    };
    let logger = match Logger::start(&config.log) {
        Ok(logger) => logger,
        Err(error) => {
            let line = Record::new(Level::Warn, "failed to verify flags").error(&error);
            if let Ok(logger) = Logger::start(&Options::default()) {
                logger.write(&line);
                logger.flush();
            }
            return ExitCode::from(1);
        }
    };
    logger.install();
    abort_on_panic();
    notices.iter().for_each(|notice| logger.write(notice));
    quorate_server::run(&config, &logger)
}

/// Ends the process when a thread panics: a member that lost one of its threads must not go on half alive.
fn abort_on_panic() {
    let log = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        log(info);
        std::process::abort();
    }));
}
