//! What a member without data begins with.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use super::error::Error;
use super::member_config::Config;
use super::url::{self, Url};

/// The members that a member without data is told to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Peer URLs of every member by its name, sorted; this member's name is among them.
    pub members: BTreeMap<String, Vec<Url>>,
    /// The text mixed into the ids.
    pub token: String,
    /// Whether they run already and this member joins them.
    pub joins: bool,
}

impl Config {
    /// Checks the initial cluster of a member that has no data yet. A member that has some never asks: its cluster is
    /// in there, and `initial-cluster` and its state are ignored, as etcd ignores them.
    ///
    /// # Errors
    ///
    /// Lists that do not parse, that lack this member or contradict its advertised URLs, in etcd's words.
    ///
    /// Source: etcd v3.7.1 server/config/config.go `VerifyBootstrap`, `VerifyJoinExisting`. Differs from etcd: host
    /// names are resolved once, and not for 30 seconds.
    pub fn bootstrap(&self) -> Result<Bootstrap, Error> {
        let members = parse_members(&self.initial_cluster).map_err(|error| {
            Error::Invalid(format!("error setting up initial cluster: {error}"))
        })?;
        let Some(urls) = members.get(&self.name) else {
            return Err(Error::Invalid(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            )));
        };
        if !self.joins_existing_cluster {
            self.check_advertised(urls)?;
        }
        let mut seen: Vec<&Url> = members.values().flatten().collect();
        seen.sort();
        if seen.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::Invalid(format!(
                "initial cluster {} has duplicate url",
                print(&members)
            )));
        }
        Ok(Bootstrap {
            members,
            token: self.initial_cluster_token.clone(),
            joins: self.joins_existing_cluster,
        })
    }

    fn check_advertised(&self, initial: &[Url]) -> Result<(), Error> {
        let advertised = &self.initial_advertise_peer_urls;
        let Err(difference) = same_addresses(advertised, initial) else {
            return Ok(());
        };
        let missing = |from: &[Url], of: &[Url]| -> Vec<Url> {
            of.iter()
                .filter(|url| !from.contains(url))
                .cloned()
                .collect()
        };
        let not_advertised = missing(advertised, initial);
        let own = |urls: &[Url]| {
            urls.iter()
                .map(|url| format!("{}={url}", self.name))
                .collect::<Vec<_>>()
                .join(",")
        };
        Err(Error::Invalid(if not_advertised.is_empty() {
            format!(
                "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
                url::join(&missing(initial, advertised)),
                own(initial)
            )
        } else {
            format!(
                "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} ({difference})",
                own(&not_advertised),
                url::join(advertised)
            )
        }))
    }
}

/// Compares sorted lists, by resolved addresses when the texts differ. Source: etcd v3.7.1 pkg/netutil/netutil.go.
///
/// # Errors
/// How they differ.
pub(crate) fn same_addresses(a: &[Url], b: &[Url]) -> Result<(), String> {
    if a == b {
        return Ok(());
    }
    if a.len() != b.len() {
        return Err(format!(
            "len({:?}) != len({:?})",
            url::join(a),
            url::join(b)
        ));
    }
    let resolved = |urls: &[Url]| -> Result<Vec<String>, String> {
        let mut texts = urls.iter().map(resolve).collect::<Result<Vec<_>, _>>()?;
        texts.sort();
        Ok(texts)
    };
    let (a, b) = (resolved(a)?, resolved(b)?);
    match a.iter().zip(&b).find(|(a, b)| a != b) {
        None => Ok(()),
        Some((a, b)) => Err(format!("resolved urls: {a:?} != {b:?}")),
    }
}

/// Returns a URL with its host as an address; `localhost` stays, as in etcd.
fn resolve(url: &Url) -> Result<String, String> {
    if url.is_unix() || url.host() == "localhost" {
        return Ok(url.to_string());
    }
    let mut found = (url.host(), url.port())
        .to_socket_addrs()
        .map_err(|error| format!("failed to resolve {:?} ({error})", url.as_str()))?;
    let address: SocketAddr = found
        .next()
        .ok_or_else(|| format!("failed to resolve {:?}", url.as_str()))?;
    let with_address = url.with_host(&address.ip().to_string(), address.port())?;
    Ok(with_address.to_string())
}

/// Reads `name=url,...`; a name may stand more than once. Source: etcd v3.7.1 client/pkg/types/urlsmap.go.
fn parse_members(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        members
            .entry(name.to_owned())
            .or_default()
            .push(Url::parse(url)?);
    }
    members.values_mut().for_each(|urls| urls.sort());
    Ok(members)
}

fn print(members: &BTreeMap<String, Vec<Url>>) -> String {
    let pairs = members
        .iter()
        .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
    pairs.collect::<Vec<_>>().join(",")
}
