//! Who a member without data is to be: a founder of a new cluster, or one that joins a running one.
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::{ClusterId, MemberId};
use quorate_transport::PeerClient;

use crate::bootstrap::Start;
use crate::config::{self, Bootstrap, Config, Url};
use crate::version;

/// How long each of the others may take to say whether this member has run already. Source: etcd v3.7.1
/// server/config/config.go BootstrapTimeoutEffective.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long each member of a running cluster may take to name its members. Source: etcd v3.7.1
/// server/etcdserver/cluster_util.go.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);
/// The oldest cluster that can be joined. Source: etcd v3.7.1 api/version/version.go MinClusterVersion.
const MIN_CLUSTER_VERSION: (u32, u32) = (3, 0);

/// Makes the start of a founder.
pub(crate) fn found(config: &Config, initial: &Bootstrap) -> Start {
    let members = initial.members.iter();
    let texts = |(name, urls): (&'_ String, &Vec<Url>)| (name.clone(), texts(urls));
    let members: Vec<(String, Vec<String>)> = members.map(texts).collect();
    let members = members.iter().map(|(name, urls)| (&name[..], urls.clone()));
    Start::found(members, &initial.token, &config.name)
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}

/// What a running cluster says of itself.
#[derive(Clone, Debug, PartialEq)]
struct Running {
    cluster_id: ClusterId,
    members: Vec<pb::Member>,
}

impl Running {
    /// Finds this member in the running cluster: every member there must be one of the initial cluster.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/api/membership/cluster.go ValidateClusterAndAssignIDs.
    fn id_of(&self, name: &str, initial: &Bootstrap) -> Result<MemberId, String> {
        let refuse = |why: String| {
            let members: Vec<String> = self.members.iter().map(print).collect();
            format!(
                "error validating peerURLs {{ClusterID:{} Members:[{}] RemovedMemberIDs:[]}}: {why}",
                self.cluster_id,
                members.join(" ")
            )
        };
        if self.members.len() != initial.members.len() {
            return Err(refuse("member count is unequal".to_owned()));
        }
        let mut own = None;
        for member in &self.members {
            let mut urls = member
                .peer_ur_ls
                .iter()
                .map(|text| Url::parse(text))
                .collect::<Result<Vec<_>, _>>()
                .map_err(refuse)?;
            urls.sort();
            let mut difference = String::new();
            let found = initial.members.iter().find(|(_, initial)| {
                config::same_addresses(&urls, initial)
                    .map_err(|why| difference = why)
                    .is_ok()
            });
            let Some((found, _)) = found else {
                return Err(refuse(format!(
                    "PeerURLs: no match found for existing member ({:x}, {:?}), last resolver error ({difference})",
                    member.id, member.peer_ur_ls
                )));
            };
            if found == name {
                own = Some(MemberId(member.id));
            }
        }
        own.ok_or_else(|| refuse(format!("no member of the cluster has the URLs of {name:?}")))
    }
}

/// Prints a member as Go prints etcd's.
fn print(member: &pb::Member) -> String {
    format!(
        "&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
        member.id,
        member.peer_ur_ls.join(" "),
        member.is_learner,
        member.name,
        member.client_ur_ls.join(" ")
    )
}

/// Decides for a member without data; asks the others where it must.
///
/// # Errors
/// When it is a member that has run already, or cannot join.
/// Source: etcd v3.7.1 server/etcdserver/bootstrap.go bootstrapNewClusterNoWAL, bootstrapExistingClusterNoWAL.
pub(crate) fn start(config: &Config, initial: &Bootstrap) -> Result<Start, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot ask other members: {e}"))?;
    runtime.block_on(async {
        if initial.joins {
            join(config, initial).await
        } else {
            refuse_second_start(config, initial).await
        }
    })
}

/// Returns the peer URLs of all members but this one, sorted.
fn others(config: &Config, initial: &Bootstrap) -> Vec<String> {
    let others = initial
        .members
        .iter()
        .filter(|(name, _)| **name != config.name);
    let mut urls: Vec<String> = others.flat_map(|(_, urls)| texts(urls)).collect();
    urls.sort();
    urls
}

/// Asks one URL after the other who the members are.
async fn ask(config: &Config, urls: &[String], timeout: Duration) -> Option<Running> {
    let client = PeerClient::new(timeout, config.links.local_address);
    for url in urls {
        match client.members(std::slice::from_ref(url), timeout).await {
            Ok((_, members)) if members.is_empty() => return None,
            Ok((cluster_id, members)) => {
                return Some(Running {
                    cluster_id,
                    members,
                });
            }
            Err(error) => {
                tracing::warn!(address = %format_args!("{url}/members"), error = %error, "failed to get cluster response");
            }
        }
    }
    None
}

/// A founder whose cluster runs already has lost its data; starting again under its old id would lose what it had
/// acknowledged.
async fn refuse_second_start(config: &Config, initial: &Bootstrap) -> Result<Start, String> {
    let start = found(config, initial);
    let own = start.identity().map_or(0, |identity| identity.member_id);
    let running = ask(config, &others(config, initial), BOOTSTRAP_TIMEOUT).await;
    let is_known = |m: &pb::Member| m.id == own && !m.client_ur_ls.is_empty();
    if running.is_some_and(|r| r.members.iter().any(is_known)) {
        return Err(format!("member {own:x} has already been bootstrapped"));
    }
    Ok(start)
}

async fn join(config: &Config, initial: &Bootstrap) -> Result<Start, String> {
    let running = ask(config, &others(config, initial), MEMBERS_TIMEOUT)
        .await
        .ok_or("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs")?;
    let member_id = running.id_of(&config.name, initial)?;
    if !is_compatible(config, &running, member_id).await {
        return Err("incompatible with current running cluster".to_owned());
    }
    let learners = running.members.iter().filter(|m| m.is_learner).count();
    if learners > config.max_learners {
        return Err(format!(
            "number of learners ({learners}) exceeds --max-learners ({})",
            config.max_learners
        ));
    }
    Ok(Start::Join {
        member_id,
        cluster_id: running.cluster_id,
        members: running.members,
    })
}

/// Asks the members for the cluster's version: all that answer must have one that this member can serve, and one must
/// answer.
///
/// Source: etcd v3.7.1 server/etcdserver/cluster_util.go isCompatibleWithCluster.
async fn is_compatible(config: &Config, running: &Running, own: MemberId) -> bool {
    let timeout = Duration::from_millis(quorate_core::request_timeout_ms(crate::settings::ms(
        config.election_timeout(),
    )));
    let client = PeerClient::new(timeout, config.links.local_address);
    let mut versions = Vec::new();
    let mut downgrades = false;
    for member in running.members.iter().filter(|m| m.id != own.0) {
        if !downgrades {
            let asked = client.downgrade_enabled(&member.peer_ur_ls, timeout).await;
            downgrades = asked.unwrap_or(false);
        }
        match client.versions(&member.peer_ur_ls, timeout).await {
            Ok(found) => versions.push(found.cluster.unwrap_or_default()),
            Err(error) => {
                tracing::warn!("remote-member-id" = %format_args!("{:x}", member.id), error = %error, "failed to get version");
            }
        }
    }
    fits(&versions, downgrades)
}

fn fits(cluster_versions: &[String], downgrades: bool) -> bool {
    let (major, minor) = version::MAJOR_MINOR;
    let (min, max) = if downgrades {
        ((major, minor + 1), (major, minor + 1))
    } else {
        (MIN_CLUSTER_VERSION, (major, minor))
    };
    let parsed: Vec<(u32, u32)> = cluster_versions
        .iter()
        .filter_map(|text| version::major_minor(text))
        .collect();
    let all_fit = parsed.iter().all(|version| (min..=max).contains(version));
    all_fit && !parsed.is_empty()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn initial(members: &[(&str, &str)]) -> Bootstrap {
        let members: BTreeMap<_, _> = members
            .iter()
            .map(|(name, url)| ((*name).to_owned(), vec![Url::parse(url).unwrap()]))
            .collect();
        Bootstrap {
            members,
            token: "t".to_owned(),
            joins: true,
        }
    }

    fn running(members: &[(u64, &str)]) -> Running {
        let member = |(id, url): &(u64, &str)| pb::Member {
            id: *id,
            peer_ur_ls: vec![(*url).to_owned()],
            ..pb::Member::default()
        };
        Running {
            cluster_id: ClusterId(9),
            members: members.iter().map(member).collect(),
        }
    }

    #[test]
    fn a_joiner_finds_itself_by_its_urls_and_all_others_must_match() {
        let two = running(&[(1, "http://127.0.0.1:1"), (2, "http://127.0.0.1:2")]);
        let own = [("a", "http://127.0.0.1:1"), ("b", "http://127.0.0.1:2")];
        assert_eq!(two.id_of("b", &initial(&own)), Ok(MemberId(2)));
        let error = two.id_of("b", &initial(&own[1..])).unwrap_err();
        assert!(error.contains("member count is unequal"), "{error}");
        let other = [("a", "http://127.0.0.1:3"), ("b", "http://127.0.0.1:2")];
        let error = two.id_of("b", &initial(&other)).unwrap_err();
        assert!(
            error.contains("no match found for existing member (1,"),
            "{error}"
        );
    }

    #[test]
    fn the_window_of_versions_is_that_of_etcd() {
        let of = |versions: &[&str]| -> Vec<String> {
            versions.iter().map(|v| (*v).to_owned()).collect()
        };
        assert!(fits(&of(&["3.7.0", "3.6.0"]), false));
        assert!(!fits(&of(&[]), false));
        assert!(!fits(&of(&["not_decided"]), false));
        assert!(!fits(&of(&["3.7.0", "3.8.0"]), false));
        assert!(!fits(&of(&["2.3.0"]), false));
        assert!(fits(&of(&["3.8.0"]), true));
        assert!(!fits(&of(&["3.7.0"]), true));
    }
}
