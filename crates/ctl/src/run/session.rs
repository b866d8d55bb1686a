//! One run of a command: its arguments, its flags and, once asked for, its client.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use prost::Message;
use tokio::time::Instant;

use crate::cli::command::{Action, Chosen};
use crate::cli::env;
use crate::cli::flags::Flags;
use crate::client::{Client, Credentials, Deadline, Repeat, Settings};
use crate::failure::{Failure, Outcome, status};
use crate::log;
use crate::print::Printer;
use crate::status::CallError;
use crate::terminal::{ask_secret, complain};

/// The largest request when the user sets no limit, in bytes.
const MAX_REQUEST_BYTES: usize = 2 << 20;
/// The largest response when the user sets no limit, in bytes.
const MAX_RESPONSE_BYTES: usize = 0x7fff_ffff;

/// What a command has to work with.
#[derive(Debug)]
pub(crate) struct Session {
    chosen: Chosen,
    pub(crate) flags: Flags,
    /// The arguments that are not flags.
    pub(crate) args: Vec<Vec<u8>>,
}

/// A session that is connected.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) flags: Flags,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) client: Client,
    pub(crate) printer: Printer,
    pub(crate) settings: Settings,
}

impl Session {
    pub(crate) fn new(chosen: Chosen, flags: Flags, args: Vec<Vec<u8>>) -> Session {
        Session {
            chosen,
            flags,
            args,
        }
    }

    /// Takes flags from the environment, settles the output format and makes a client.
    pub(crate) async fn connect(mut self) -> Outcome<Connected> {
        self.read_environment()?;
        let settings = self.settings()?;
        let printer = Printer::new(&self.flags.string("write-out"), self.flags.bool("hex"))?;
        let client = Client::new(settings.clone()).await;
        Ok(Connected {
            client: client.map_err(|e| Failure::new(status::BAD_CONNECTION, e.to_string()))?,
            flags: self.flags,
            args: self.args,
            printer,
            settings,
        })
    }

    fn read_environment(&mut self) -> Outcome {
        let environment: Vec<(Vec<u8>, Vec<u8>)> = std::env::vars_os()
            .map(|(name, value)| (OsString::into_vec(name), OsString::into_vec(value)))
            .collect();
        let is_watch = self.chosen.command().action == Some(Action::Watch);
        let inherited = self.chosen.inherited();
        for variable in env::apply(&mut self.flags, &inherited, &environment, is_watch)? {
            log::write(
                "warn",
                "unrecognized environment variable",
                &[("environment-variable", &variable)],
            );
        }
        if self.flags.bool("debug") {
            for flag in inherited {
                let variable = env::variable(flag.name);
                complain(&format!("{variable}={}", shown(&self.flags, flag.name)));
            }
        }
        Ok(())
    }

    fn settings(&self) -> Outcome<Settings> {
        let endpoints = self.flags.list("endpoints");
        let endpoints: Vec<String> = endpoints.iter().map(|e| e.trim().to_owned()).collect();
        self.refuse_tls(&endpoints)?;
        let credentials = self.credentials()?;
        if endpoints.is_empty() {
            return Err(Failure::new(
                status::BAD_CONNECTION,
                "etcdclient: no available endpoints",
            ));
        }
        let limit = |flag: &str, default: usize| match usize::try_from(self.flags.int(flag)) {
            Ok(0) | Err(_) => default,
            Ok(limit) => limit,
        };
        Ok(Settings {
            endpoints,
            dial_timeout: self.flags.duration("dial-timeout"),
            keepalive_time: self.flags.duration("keepalive-time"),
            keepalive_timeout: self.flags.duration("keepalive-timeout"),
            max_request_bytes: limit("max-request-bytes", MAX_REQUEST_BYTES),
            max_response_bytes: limit("max-recv-bytes", MAX_RESPONSE_BYTES),
            credentials,
        })
    }

    /// Refuses what would need TLS or DNS, so that nothing is sent in the clear that was meant to be safe.
    fn refuse_tls(&self, endpoints: &[String]) -> Outcome {
        for flag in ["cert", "key", "cacert"] {
            if !self.flags.is_given(flag) {
                continue;
            }
            if self.flags.bytes(flag).is_empty() {
                return Err(Failure::bad_args(format!(
                    "empty string is passed to --{flag} option"
                )));
            }
            return Err(Failure::bad_args(format!(
                "--{flag} needs TLS, which is not built yet"
            )));
        }
        if !self.flags.bool("insecure-transport") || self.flags.bool("insecure-skip-tls-verify") {
            return Err(Failure::bad_args(
                "the flags ask for TLS, which is not built yet",
            ));
        }
        let secure = |e: &&String| e.starts_with("https:") || e.starts_with("unixs:");
        if let Some(endpoint) = endpoints.iter().find(secure) {
            return Err(Failure::bad_args(format!(
                "{endpoint} needs TLS, which is not built yet"
            )));
        }
        if !self.flags.bytes("discovery-srv").is_empty() {
            return Err(Failure::bad_args("--discovery-srv is not built yet"));
        }
        Ok(())
    }

    fn credentials(&self) -> Outcome<Option<Credentials>> {
        let token = self.flags.string("auth-jwt-token");
        if !token.is_empty() {
            return Ok(Some(Credentials::Token(token)));
        }
        let user = self.flags.string("user");
        if user.is_empty() {
            return Ok(None);
        }
        let given = self.flags.string("password");
        let (name, password) = match user.split_once(':') {
            _ if !given.is_empty() => (user, given),
            Some((name, password)) => (name.to_owned(), password.to_owned()),
            None => {
                let password = ask_secret("Password: ")?;
                (user, password)
            }
        };
        Ok(Some(Credentials::Password { name, password }))
    }
}

impl Connected {
    /// When a short command must be over.
    pub(crate) fn deadline(&self) -> Deadline {
        Instant::now().checked_add(self.flags.duration("command-timeout"))
    }

    /// A call whose failure ends the command with status 1.
    pub(crate) async fn call<Q, A>(
        &self,
        method: &str,
        request: Q,
        deadline: Deadline,
        repeat: Repeat,
    ) -> Outcome<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.client
            .call(method, &request, deadline, repeat)
            .await
            .map_err(fail)
    }

    /// The argument at `at` as text.
    pub(crate) fn text(&self, at: usize) -> String {
        String::from_utf8_lossy(&self.args[at]).into_owned()
    }
}

/// A failed call as the end of the command.
pub(crate) fn fail(error: CallError) -> Failure {
    Failure::error(error.to_string())
}

fn shown(flags: &Flags, name: &str) -> String {
    let flag = |kind| match kind {
        crate::cli::flags::Kind::Bool => flags.bool(name).to_string(),
        crate::cli::flags::Kind::Int => flags.int(name).to_string(),
        crate::cli::flags::Kind::Text => flags.string(name),
        crate::cli::flags::Kind::Duration => crate::go::duration::format(flags.duration(name)),
        crate::cli::flags::Kind::List => format!("[{}]", flags.list(name).join(",")),
    };
    flags.kind(name).map(flag).unwrap_or_default()
}
