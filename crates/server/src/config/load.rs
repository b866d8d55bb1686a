//! From command line, environment and file to a configuration.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::ExitCode;

use super::error::Error;
use super::flag::Value;
use super::flag_set::{FlagSet, Parsed};
use super::member_config::{self, Config};
use super::url::Url;
use super::{effect, help, links, log_options, table, validate, yaml};
use crate::log::{self, Level, Logger, Record};
use crate::version;

/// What the start came to.
#[derive(Debug)]
pub enum Loaded {
    /// A member is to start.
    Start {
        /// Its configuration.
        config: Box<Config>,
        /// Lines to be logged before anything else, in this order.
        notices: Vec<Record>,
    },
    /// The process is to end: see [`Exit::run`].
    Exit(Exit),
}

/// What to print and log before the process ends, and with which code.
#[derive(Debug)]
pub struct Exit {
    /// Code of the process.
    pub code: u8,
    /// For the standard output.
    pub stdout: String,
    /// For the standard error.
    pub stderr: String,
    /// Where to log.
    pub log: log::Options,
    /// What to log.
    pub notices: Vec<Record>,
}

impl Exit {
    fn printing(code: u8, stdout: impl Into<String>, stderr: impl Into<String>) -> Exit {
        let (stdout, stderr) = (stdout.into(), stderr.into());
        Exit {
            code,
            stdout,
            stderr,
            log: log::Options::default(),
            notices: Vec::new(),
        }
    }

    /// Prints and logs, and returns the code to end with.
    pub fn run(&self) -> ExitCode {
        // Nobody can be told when these fail.
        let _ = io::stderr().write_all(self.stderr.as_bytes());
        let _ = io::stdout()
            .write_all(self.stdout.as_bytes())
            .and_then(|()| io::stdout().flush());
        if !self.notices.is_empty()
            && let Ok(logger) =
                Logger::start(&self.log).or_else(|_| Logger::start(&log::Options::default()))
        {
            self.notices.iter().for_each(|notice| logger.write(notice));
            logger.flush();
        }
        ExitCode::from(self.code)
    }
}

/// Reads the configuration of this process. Source: etcd v3.7.1 server/etcdmain/config.go `parse`.
///
/// `args` begins with the program's name.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Loaded {
    let mut notices = Vec::new();
    let Ok(args) = args
        .into_iter()
        .map(OsString::into_string)
        .collect::<Result<Vec<_>, _>>()
    else {
        return Loaded::Exit(Exit::printing(
            2,
            "",
            format!("an argument is not valid UTF-8\n{}", help::USAGE),
        ));
    };
    // A variable that is no text cannot be one of ours.
    let variables: Vec<(String, String)> = variables
        .into_iter()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mut flags = FlagSet::new();
    match read(&args, variables, &mut flags, &mut notices) {
        Ok(Outcome::Start { from_file }) => start(&args, &mut flags, from_file, notices),
        Ok(Outcome::Help) => Loaded::Exit(Exit::printing(0, help::flags(), help::USAGE)),
        Ok(Outcome::Version) => Loaded::Exit(Exit::printing(0, version::text(), "")),
        Err(error) => Loaded::Exit(failed(&args, &error, log::Options::default(), notices)),
    }
}

enum Outcome {
    Start { from_file: bool },
    Help,
    Version,
}

/// Fills the flags from the first source there is.
fn read(
    args: &[String],
    mut variables: Vec<(String, String)>,
    flags: &mut FlagSet,
    notices: &mut Vec<Record>,
) -> Result<Outcome, Error> {
    let args = args.get(1..).unwrap_or(&[]);
    if let Some(proxy @ ("gateway" | "grpc-proxy")) = args.first().map(String::as_str) {
        return Err(Error::Invalid(format!(
            "the command {proxy:?} is not built yet"
        )));
    }
    check_architecture(&variables)?;
    if flags.parse_args(args)? == Parsed::Help {
        return Ok(Outcome::Help);
    }
    if flags.switch("version") {
        return Ok(Outcome::Version);
    }
    let path = match flags.text("config-file") {
        "" => variables
            .iter()
            .find(|(key, _)| key == "ETCD_CONFIG_FILE")
            .map_or("", |(_, path)| path)
            .to_owned(),
        given => given.to_owned(),
    };
    if !path.is_empty() {
        let given = std::mem::replace(flags, FlagSet::new());
        links::keep(&given, flags);
        let text =
            read_file(&path).map_err(|error| Error::Invalid(format!("open {path}: {error}")))?;
        yaml::read(&text, flags)?;
        notices.push(
            Record::new(
                Level::Info,
                "loaded server configuration, other configuration command line flags and environment variables will \
                 be ignored if provided",
            )
            .text("path", path),
        );
        return Ok(Outcome::Start { from_file: true });
    }
    // It would otherwise set --version.
    if let Some(at) = variables
        .iter()
        .position(|(key, text)| key == "ETCD_VERSION" && !text.is_empty())
    {
        let (key, text) = variables.remove(at);
        notices.push(
            Record::new(Level::Warn, "cannot set special environment variable")
                .text("key", key)
                .text("value", text),
        );
    }
    flags.read_environment(&variables, notices)?;
    let discovers = ["discovery-srv", "discovery-srv-name"]
        .iter()
        .any(|name| !flags.text(name).is_empty())
        || !flags.list("discovery-endpoints").is_empty();
    if discovers && !flags.is_given("initial-cluster") {
        flags.put("initial-cluster", Value::Text(String::new()));
    }
    Ok(Outcome::Start { from_file: false })
}

fn read_file(path: &str) -> io::Result<String> {
    let mut text = String::new();
    let limit = yaml::FILE_BYTES_MAX;
    let read = File::open(path)?
        .take(limit + 1)
        .read_to_string(&mut text)?;
    if read as u64 > limit {
        return Err(io::Error::other(format!("larger than {limit} bytes")));
    }
    Ok(text)
}

/// Refuses machines for which nobody vouches. Source: etcd v3.7.1 server/etcdmain/etcd.go `checkSupportArch`.
fn check_architecture(variables: &[(String, String)]) -> Result<(), Error> {
    let arch = version::arch();
    let allowed = variables
        .iter()
        .any(|(key, value)| key == "ETCD_UNSUPPORTED_ARCH" && value == arch);
    if allowed || matches!(arch, "amd64" | "arm64" | "ppc64le" | "s390x") {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "Refusing to run etcd on unsupported architecture since ETCD_UNSUPPORTED_ARCH is not set: {arch}"
    )))
}

/// Checks all rules and makes the configuration.
fn start(
    args: &[String],
    flags: &mut FlagSet,
    from_file: bool,
    mut notices: Vec<Record>,
) -> Loaded {
    let mut log = log::Options::default();
    match check(flags, from_file, &mut log, &mut notices) {
        Ok(config) => {
            notices.push(running(args));
            if flags.text("data-dir").is_empty() {
                notices.push(
                    Record::new(Level::Warn, "'data-dir' was empty; using default")
                        .text("data-dir", config.data_dir.to_string_lossy()),
                );
            }
            Loaded::Start {
                config: Box::new(config),
                notices,
            }
        }
        Err(error) => Loaded::Exit(failed(args, &error, log, notices)),
    }
}

fn check(
    flags: &mut FlagSet,
    from_file: bool,
    log: &mut log::Options,
    notices: &mut Vec<Record>,
) -> Result<Config, Error> {
    if flags.text("discovery-fallback") == "proxy" {
        return Err(Error::Invalid(
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\""
                .to_owned(),
        ));
    }
    *log = log_options::read(flags)?;
    validate::check(flags, from_file, notices)?;
    for (name, warning) in table::DEPRECATED {
        if flags.is_given(name) {
            notices.push(Record::new(Level::Warn, *warning));
        }
    }
    effect::check(flags, notices)?;
    advertise_default_host(flags, notices);
    links::settle(flags, from_file, notices);
    warn_of_extremes(flags, notices);
    Config::from_flags(flags, log.clone())
}

/// Replaces a default advertised host when the listener takes any address, and names the initial cluster.
///
/// Source: etcd v3.7.1 server/embed/config.go `UpdateDefaultClusterFromName`.
fn advertise_default_host(flags: &mut FlagSet, notices: &mut Vec<Record>) {
    let mut host = None;
    for (listen, advertise) in [
        ("listen-peer-urls", "initial-advertise-peer-urls"),
        ("listen-client-urls", "advertise-client-urls"),
    ] {
        let first = &flags.urls(listen)[0];
        if !flags.is_default(advertise) || first.host() != "0.0.0.0" {
            continue;
        }
        let found = default_host().and_then(|host| {
            let url = flags.urls(advertise)[0]
                .with_host(&host, first.port())
                .map_err(io::Error::other)?;
            Ok((host, url))
        });
        match found {
            Ok((found, url)) => {
                flags.put(advertise, Value::Urls(vec![url]));
                host = Some(found);
            }
            Err(error) => {
                notices
                    .push(Record::new(Level::Info, "failed to detect default host").error(&error));
            }
        }
    }
    if let Some(host) = host {
        notices.push(
            Record::new(Level::Info, "detected default host for advertise").text("host", host),
        );
    }
    if !flags.is_default("name") && flags.is_default("initial-cluster") {
        let name = Some(flags.text("name"))
            .filter(|name| !name.is_empty())
            .unwrap_or("default");
        let pair = |url: &Url| format!("{name}={url}");
        let cluster = flags
            .urls("initial-advertise-peer-urls")
            .iter()
            .map(pair)
            .collect::<Vec<_>>()
            .join(",");
        flags.put("initial-cluster", Value::Text(cluster));
    }
}

/// Returns the address from which this machine would reach others.
fn default_host() -> io::Result<String> {
    /// An address for documentation; connecting a datagram socket chooses a route and sends nothing.
    const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(ELSEWHERE)?;
    Ok(socket.local_addr()?.ip().to_string())
}

/// Logs values that are taken and seldom meant. Source: etcd v3.7.1 bootstrap.go, quota.go, auth/store.go.
fn warn_of_extremes(flags: &FlagSet, notices: &mut Vec<Record>) {
    const RECOMMENDED_REQUEST_BYTES: u64 = 10 << 20;
    const RECOMMENDED_QUOTA_BYTES: i64 = 8 << 30;
    let request_bytes = flags.uint("max-request-bytes");
    if request_bytes > RECOMMENDED_REQUEST_BYTES {
        notices.push(
            Record::new(Level::Warn, "exceeded recommended request limit")
                .uint("max-request-bytes", request_bytes)
                .uint("recommended-request-bytes", RECOMMENDED_REQUEST_BYTES),
        );
    }
    let quota_bytes = flags.int("quota-backend-bytes");
    if quota_bytes > RECOMMENDED_QUOTA_BYTES {
        notices.push(
            Record::new(Level::Warn, "quota exceeds the maximum value")
                .int("quota-size-bytes", quota_bytes)
                .int("quota-maximum-size-bytes", RECOMMENDED_QUOTA_BYTES),
        );
    }
    if member_config::bcrypt_cost(flags).is_none() {
        notices.push(
            Record::new(
                Level::Warn,
                "use default bcrypt cost instead of the invalid given cost",
            )
            .uint("min-cost", 4)
            .uint("max-cost", 31)
            .uint("given-cost", flags.uint("bcrypt-cost")),
        );
    }
}

fn running(args: &[String]) -> Record {
    Record::new(Level::Info, "Running: ").list("args", args)
}

fn failed(args: &[String], error: &Error, log: log::Options, mut notices: Vec<Record>) -> Exit {
    if let Error::Usage(message) = error {
        return Exit::printing(error.exit_code(), "", format!("{message}\n{}", help::USAGE));
    }
    notices.push(running(args));
    notices.push(Record::new(Level::Warn, "failed to verify flags").error(error));
    let text = error.to_string();
    if text == validate::UNSET_ADVERTISE_CLIENT_URLS {
        notices.push(
            Record::new(Level::Warn, "advertise client URLs are not set").text("error", text),
        );
    }
    Exit {
        log,
        notices,
        ..Exit::printing(error.exit_code(), "", "")
    }
}
