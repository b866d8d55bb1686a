//! The members of a new cluster, as the flags name them.
//!
//! Source: etcd v3.7.1 `client/pkg/types/urls.go`, `urlsmap.go`, `server/config/config.go` `VerifyBootstrap`. Differs from etcd: names in
//! URLs that differ are not looked up; `--initial-cluster` and `--initial-advertise-peer-urls` must name the same URLs.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::FoundingMember;

/// Reads and checks `--initial-cluster` against the member's own name and URLs.
///
/// # Errors
/// The text for the user.
pub(super) fn members(
    cluster: &str,
    name: &str,
    own_urls: &str,
) -> Result<Vec<FoundingMember>, String> {
    let own: Vec<&str> = own_urls.split(',').collect();
    let own = urls(&own)?;
    let mut given: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for part in cluster.split(',').filter(|part| !part.is_empty()) {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        given.entry(name).or_default().push(url);
    }
    let mut members = Vec::new();
    for (name, given) in given {
        members.push(FoundingMember {
            name: name.to_owned(),
            peer_urls: urls(&given)?,
        });
    }
    let listed = members.iter().find(|member| member.name == name);
    let listed = listed.ok_or_else(|| {
        format!("couldn't find local name \"{name}\" in the initial cluster configuration")
    })?;
    same_urls(name, &listed.peer_urls, &own)?;
    let mut seen = BTreeSet::new();
    let mut all = members.iter().flat_map(|member| &member.peer_urls);
    if !all.all(|url| seen.insert(url)) {
        return Err(format!(
            "initial cluster {} has duplicate url",
            shown(&members)
        ));
    }
    Ok(members)
}

fn same_urls(name: &str, listed: &[String], own: &[String]) -> Result<(), String> {
    let named = |urls: Vec<&String>| {
        let urls: Vec<String> = urls.iter().map(|url| format!("{name}={url}")).collect();
        urls.join(",")
    };
    let missing: Vec<&String> = listed.iter().filter(|url| !own.contains(url)).collect();
    if !missing.is_empty() {
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}",
            named(missing),
            own.join(",")
        ));
    }
    let missing: Vec<&String> = own.iter().filter(|url| !listed.contains(url)).collect();
    if !missing.is_empty() {
        let own: Vec<&String> = own.iter().collect();
        return Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            named(missing),
            named(own)
        ));
    }
    Ok(())
}

/// The members as the flag would name them.
fn shown(members: &[FoundingMember]) -> String {
    let mut pairs: Vec<String> = members
        .iter()
        .flat_map(|m| m.peer_urls.iter().map(|url| format!("{}={url}", m.name)))
        .collect();
    pairs.sort();
    pairs.join(",")
}

/// Checks URLs and sorts them.
fn urls(given: &[&str]) -> Result<Vec<String>, String> {
    let mut urls = given
        .iter()
        .map(|url| check(url.trim()))
        .collect::<Result<Vec<String>, String>>()?;
    urls.sort();
    Ok(urls)
}

fn check(url: &str) -> Result<String, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "http" | "https" => {
            let (host, path) = match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            if !is_host_and_port(host) {
                return Err(format!(
                    "URL address does not have the form \"host:port\": {url}"
                ));
            }
            if !path.is_empty() {
                return Err(format!("URL must not contain a path: {url}"));
            }
        }
        "unix" | "unixs" => {}
        _ => {
            return Err(format!(
                "URL scheme must be http, https, unix, or unixs: {url}"
            ));
        }
    }
    Ok(format!("{scheme}://{rest}"))
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_bare = !host.contains([':', '[', ']']);
    let is_bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    (is_bare || is_bracketed) && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "a=http://h1:1,b=http://h2:2,a=https://h1:3,c=unix://x";

    #[test]
    fn members_are_read_as_etcd_reads_them() {
        let found = members(THREE, "a", "https://h1:3,http://h1:1").unwrap();
        let shown: Vec<String> = found
            .iter()
            .map(|m| format!("{} {}", m.name, m.peer_urls.join(" ")))
            .collect();
        assert_eq!(
            shown,
            ["a http://h1:1 https://h1:3", "b http://h2:2", "c unix://x"]
        );
    }

    #[test]
    fn complaints_are_etcds() {
        for (cluster, name, own, complaint) in [
            (
                THREE,
                "d",
                "http://h:1",
                "couldn't find local name \"d\" in the initial cluster configuration",
            ),
            (
                THREE,
                "a",
                "http://h1:1",
                "--initial-cluster has a=https://h1:3 but missing from --initial-advertise-peer-urls=http://h1:1",
            ),
            (
                "a=http://h:1",
                "a",
                "http://h:1,http://h:2",
                "--initial-advertise-peer-urls has a=http://h:2 but missing from --initial-cluster=a=http://h:1,a=http://h:2",
            ),
            (
                "a=http://h:1,b=http://h:1",
                "a",
                "http://h:1",
                "initial cluster a=http://h:1,b=http://h:1 has duplicate url",
            ),
            (
                "a=h:1",
                "a",
                "http://h:1",
                "URL scheme must be http, https, unix, or unixs: h:1",
            ),
            (
                "a",
                "a",
                "http://h",
                "URL address does not have the form \"host:port\": http://h",
            ),
            (
                "a",
                "a",
                "http://h:1/x",
                "URL must not contain a path: http://h:1/x",
            ),
        ] {
            assert_eq!(members(cluster, name, own).unwrap_err(), complaint);
        }
        assert!(members("a=http://[::1]:1", "a", "http://[::1]:1").is_ok());
    }
}
