//! How long connections between members may stand still, and from where they are made.

use std::net::IpAddr;
use std::time::Duration;

use super::feature_gates::Gate;
use super::flag::Value;
use super::flag_set::FlagSet;
use super::go::GoDuration;
use super::url::Url;
use crate::log::{Level, Record};

/// The least of both times in nanoseconds: without a configuration file, shorter ones are raised to it.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/peer.go `DefaultConnReadTimeout`, `DefaultConnWriteTimeout`.
const TIMEOUT_NS_MIN: i64 = 5_000_000_000;
/// Nanoseconds for which nobody waits.
const NEVER_NS: i64 = i64::MAX;
/// Flags of the two times.
const READ: &str = "raft-read-timeout";
const WRITE: &str = "raft-write-timeout";

/// Connections to other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// Longest silence. **Invariant:** above 0, and at least 5 s unless there is a configuration file.
    pub read_timeout: Duration,
    /// Longest time in which nothing can be written. **Invariant:** above 0, and at least 5 s unless there is a configuration file.
    pub write_timeout: Duration,
    /// Where they begin; the system's choice when `None`.
    pub local_address: Option<IpAddr>,
}

impl LinkOptions {
    /// A time that is not above 0 is none.
    ///
    /// Differs from etcd, which in a cluster cannot start with a configuration file and a read timeout that is not above 0.
    pub(crate) fn from_flags(flags: &FlagSet) -> Self {
        let timeout = |name| {
            let nanos = Some(flags.nanos(name)).filter(|nanos| *nanos > 0);
            Duration::from_nanos(nanos.unwrap_or(NEVER_NS).unsigned_abs())
        };
        Self {
            read_timeout: timeout(READ),
            write_timeout: timeout(WRITE),
            local_address: local_address(flags),
        }
    }
}

/// Returns the first address to be advertised that others can reach, if the gate for it is on.
///
/// Source: etcd v3.7.1 server/embed/config.go `InferLocalAddr`.
/// Differs from etcd, which cannot start with an IPv6 address here.
fn local_address(flags: &FlagSet) -> Option<IpAddr> {
    let urls = flags.urls("initial-advertise-peer-urls");
    let addresses = urls.iter().filter_map(|url| url.host().parse().ok());
    let mut suitable = addresses.filter(|ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified());
    let is_on = flags.gates().is_enabled(Gate::SetMemberLocalAddr);
    suitable.next().filter(|_| is_on)
}

/// Takes the two times over from a command line that gives way to a configuration file, where they have no keys.
///
/// Source: etcd v3.7.1 server/embed/config.go `AddFlags`: both are variables of the process, which no file resets.
pub(crate) fn keep(args: &FlagSet, flags: &mut FlagSet) {
    for name in [READ, WRITE] {
        if args.is_given(name) {
            flags.put(name, args.value(name).clone());
        }
    }
}

/// Raises what is too short, unless there is a configuration file, and says so and what the gate for the local address comes to.
///
/// Source: etcd v3.7.1 server/etcdmain/config.go `configFromCmdLine`.
pub(crate) fn settle(flags: &mut FlagSet, from_file: bool, notices: &mut Vec<Record>) {
    for name in [READ, WRITE] {
        if !from_file && flags.nanos(name) < TIMEOUT_NS_MIN {
            flags.put(name, Value::Duration(TIMEOUT_NS_MIN));
            let least = GoDuration::from_nanos(TIMEOUT_NS_MIN);
            let text = format!("{name} increased to minimum value: {least}");
            notices.push(Record::new(Level::Info, text));
        }
    }
    if !flags.gates().is_enabled(Gate::SetMemberLocalAddr) {
        return;
    }
    let urls: Vec<String> = flags
        .urls("initial-advertise-peer-urls")
        .iter()
        .map(Url::to_string)
        .collect();
    notices.push(
        Record::new(
            Level::Info,
            "searching for a suitable member local address in AdvertisePeerURLs",
        )
        .list("advertise-peer-urls", urls.clone()),
    );
    notices.push(match local_address(flags) {
        Some(ip) => Record::new(Level::Info, "setting member local address")
            .text("LocalAddr", ip.to_string()),
        None => Record::new(
            Level::Warn,
            "unable to set a member local address due to lack of suitable local addresses",
        )
        .list("advertise-peer-urls", urls),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> (LinkOptions, Vec<String>) {
        let mut flags = FlagSet::new();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        flags.parse_args(&args).unwrap();
        let mut notices = Vec::new();
        settle(&mut flags, false, &mut notices);
        let said = notices.iter().map(|n| n.message().to_owned()).collect();
        (LinkOptions::from_flags(&flags), said)
    }

    #[test]
    fn times_are_at_least_those_of_etcd_and_what_is_raised_is_told() {
        let (options, said) = options(&["--raft-read-timeout=1s", "--raft-write-timeout=7s"]);
        assert_eq!(options.read_timeout, Duration::from_secs(5));
        assert_eq!(options.write_timeout, Duration::from_secs(7));
        assert_eq!(said, ["raft-read-timeout increased to minimum value: 5s"]);
    }

    #[test]
    fn with_a_file_times_are_taken_as_they_are_given() {
        let mut args = FlagSet::new();
        let given = ["--raft-read-timeout=1s", "--raft-write-timeout=-1s"];
        args.parse_args(&given.map(str::to_owned)).unwrap();
        let (mut flags, mut notices) = (FlagSet::new(), Vec::new());
        keep(&args, &mut flags);
        settle(&mut flags, true, &mut notices);
        let options = LinkOptions::from_flags(&flags);
        assert_eq!(options.read_timeout, Duration::from_secs(1));
        // Longer than anything lasts.
        assert!(options.write_timeout > Duration::from_hours(24 * 365 * 100));
        assert!(notices.is_empty());
    }

    #[test]
    fn links_begin_at_the_first_advertised_address_that_others_can_reach() {
        let urls = |urls: &str| format!("--initial-advertise-peer-urls={urls}");
        let gate = "--feature-gates=SetMemberLocalAddr=true";
        let found = |list: &str, gates: &[&str]| {
            let urls = urls(list);
            let args = [&[&urls[..]], gates].concat();
            let (options, said) = options(&args);
            (options.local_address.map(|ip| ip.to_string()), said.len())
        };
        let several = "http://127.0.0.1:1,http://[::]:1,http://a:1,http://[fd00::7]:1";
        assert_eq!(found(several, &[gate]), (Some("fd00::7".to_owned()), 2));
        assert_eq!(found(several, &[]), (None, 0));
        assert_eq!(found("http://localhost:1", &[gate]), (None, 2));
    }
}
