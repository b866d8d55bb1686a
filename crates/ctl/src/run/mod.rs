//! What each command does.

mod alarm;
mod auth;
mod endpoint;
mod kv;
mod lease;
mod member;
mod ops;
mod role;
mod session;
mod snapshot;
mod txn;
mod user;
mod watch;

use crate::cli::command::{Action, Chosen, Command, choose};
use crate::cli::commands::ROOT;
use crate::cli::flags::{Flags, ParseError};
use crate::cli::help;
use crate::failure::{Failure, Outcome, status};
use crate::terminal::{complain, print};

pub(crate) use session::Session;

/// The version of etcd whose behaviour this program has.
const ETCD_VERSION: &str = "3.7.1";
const API_VERSION: &str = "3.7";

/// Runs the command that `args` (without the program's own name) ask for.
pub(crate) fn main(program: &'static str, args: &[Vec<u8>]) -> Outcome {
    let chosen = match choose(&ROOT, program, args) {
        Ok(chosen) => chosen,
        Err(text) => {
            complain(&format!("Error: {text}\nRun '{program} --help' for usage."));
            return Err(Failure::silent(status::ERROR));
        }
    };
    let mut flags = Flags::new(chosen.flags());
    let left = match flags.parse(&chosen.args) {
        Ok(left) => left,
        Err(ParseError::Help) => return show_help(&chosen, program),
        Err(ParseError::Bad(text)) => {
            complain(&format!("Error: {text}\n{}", help::usage(&chosen, program)));
            return Err(Failure::silent(status::ERROR));
        }
    };
    match chosen.command().action {
        None => show_help(&chosen, program),
        Some(Action::Help) => help_on(program, &left),
        Some(Action::Options) => {
            print(help::options().as_bytes());
            Ok(())
        }
        Some(Action::Version) => {
            print(
                format!("etcdctl version: {ETCD_VERSION}\nAPI version: {API_VERSION}\n").as_bytes(),
            );
            Ok(())
        }
        Some(Action::SnapshotRestore) => snapshot::restore(&Session::new(chosen, flags, left)),
        Some(Action::SnapshotStatus) => snapshot::status(&Session::new(chosen, flags, left)),
        Some(action) => with_runtime(action, Session::new(chosen, flags, left)),
    }
}

fn show_help(chosen: &Chosen, program: &str) -> Outcome {
    print(help::help(chosen, program).as_bytes());
    Ok(())
}

/// `help COMMAND...`.
fn help_on(program: &str, words: &[Vec<u8>]) -> Outcome {
    let root = Chosen {
        path: vec![&ROOT as &'static Command],
        args: Vec::new(),
    };
    match choose(&ROOT, program, words) {
        Ok(chosen) if chosen.path.len() > 1 || words.is_empty() => show_help(&chosen, program),
        _ => {
            let topics: Vec<String> = words
                .iter()
                .map(|w| format!("`{}`", String::from_utf8_lossy(w)))
                .collect();
            complain(&format!(
                "Unknown help topic [{}]\n{}",
                topics.join(" "),
                help::usage(&root, program).trim_end()
            ));
            Ok(())
        }
    }
}

fn with_runtime(action: Action, session: Session) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| Failure::error(e.to_string()))?;
    // Boxed so that the largest command does not set the size of all.
    let outcome = runtime.block_on(Box::pin(run(action, session)));
    // A thread that still waits for standard input must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn run(action: Action, session: Session) -> Outcome {
    let s = session;
    match action {
        Action::Get => kv::get(s).await,
        Action::Put => kv::put(s).await,
        Action::Del => kv::del(s).await,
        Action::Compaction => kv::compaction(s).await,
        Action::Txn => txn::txn(s).await,
        Action::Watch => watch::watch(s).await,
        Action::LeaseGrant => lease::grant(s).await,
        Action::LeaseRevoke => lease::revoke(s).await,
        Action::LeaseTimeToLive => lease::time_to_live(s).await,
        Action::LeaseList => lease::list(s).await,
        Action::LeaseKeepAlive => lease::keep_alive(s).await,
        Action::AlarmList => alarm::list(s).await,
        Action::AlarmDisarm => alarm::disarm(s).await,
        Action::EndpointHealth => endpoint::health(s).await,
        Action::EndpointStatus => endpoint::status(s).await,
        Action::EndpointHashKv => endpoint::hash_kv(s).await,
        Action::Defrag => endpoint::defrag(s).await,
        Action::MoveLeader => endpoint::move_leader(s).await,
        Action::DowngradeCancel | Action::DowngradeEnable | Action::DowngradeValidate => {
            member::downgrade(s, action).await
        }
        Action::SnapshotSave => snapshot::save(s).await,
        Action::MemberList => member::list(s).await,
        Action::MemberAdd => member::add(s).await,
        Action::MemberRemove => member::remove(s).await,
        Action::MemberUpdate => member::update(s).await,
        Action::MemberPromote => member::promote(s).await,
        Action::AuthEnable => auth::enable(s).await,
        Action::AuthDisable => auth::disable(s).await,
        Action::AuthStatus => auth::status(s).await,
        Action::UserAdd => user::add(s).await,
        Action::UserDelete => user::delete(s).await,
        Action::UserGet => user::get(s).await,
        Action::UserList => user::list(s).await,
        Action::UserPasswd => user::passwd(s).await,
        Action::UserGrantRole => user::grant_role(s).await,
        Action::UserRevokeRole => user::revoke_role(s).await,
        Action::RoleAdd => role::add(s).await,
        Action::RoleDelete => role::delete(s).await,
        Action::RoleGet => role::get(s).await,
        Action::RoleList => role::list(s).await,
        Action::RoleGrantPermission => role::grant_permission(s).await,
        Action::RoleRevokePermission => role::revoke_permission(s).await,
        Action::Help
        | Action::Options
        | Action::SnapshotRestore
        | Action::SnapshotStatus
        | Action::Version => Ok(()),
    }
}
