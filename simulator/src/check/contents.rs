//! What a member holds against the model.
use std::fmt;

use quorate_core::{ClusterMember, Error, Member, Stores};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb::{AlarmType, RangeRequest};

use super::Violation;
use super::answers::{range_answer, refusal};
use crate::model::{Model, Peer};

/// Old revisions that are looked at.
const OLD_REVISIONS: i64 = 4;

/// How what a member gives differs from what it must give.
#[derive(Debug, PartialEq, Eq)]
pub enum Differs {
    /// It says that it cannot read what it holds: a member whose disk was damaged may.
    Unreadable(String),
    /// It gives something else: nobody may, whatever happened to a disk.
    Wrong(String),
}

impl Differs {
    /// Takes an error of a read: a refusal is an answer, and wrong.
    pub fn of(error: quorate_mvcc::Error) -> Self {
        let error = Error::Mvcc(error);
        match refusal(&error) {
            Some(refused) => Self::Wrong(format!("refuses it: {refused:?}")),
            None => Self::Unreadable(format!("cannot read: {error}")),
        }
    }

    /// Says whether a member may differ like this, if its disk may fail.
    pub fn is_forgiven(&self, may_fail: bool) -> bool {
        may_fail && matches!(self, Self::Unreadable(_))
    }
}

impl From<String> for Differs {
    fn from(text: String) -> Self {
        Self::Wrong(text)
    }
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unreadable(text) | Self::Wrong(text)) = self;
        f.write_str(text)
    }
}

/// Checks that a member holds exactly what the model says for the entries that it has applied, as far as it can be read:
/// one that may fail may say that it cannot.
///
/// # Errors
/// What differs.
pub fn holds(
    model: &Model,
    machine: u64,
    member: &Member,
    may_fail: bool,
) -> Result<(), Violation> {
    let place = member.view().applied();
    let members = cluster(model, place, member).map_err(Differs::Wrong);
    let checks = state(model, place, member.stores()).into_iter();
    let mut differs = checks.chain([members]).filter_map(Result::err);
    let Some(why) = differs.find(|why| !why.is_forgiven(may_fail)) else {
        return Ok(());
    };
    let text = format!("m{machine}, which has applied entry {place}, {why}");
    Err(Violation::new("members hold what the log says", text))
}

/// Checks that what was restored of a member's backup holds what the model says for the entries in it.
///
/// # Errors
/// What differs.
pub fn backup_holds(
    model: &Model,
    machine: u64,
    place: u64,
    stores: &Stores,
) -> Result<(), Violation> {
    let (is, must) = (stores.cluster.version(), model.cluster_at(place));
    let version = match is == must.version() {
        true => Ok(()),
        false => Err(Differs::Wrong(format!(
            "is of version {is}, not {}",
            must.version()
        ))),
    };
    let all = state(model, place, stores).into_iter().chain([version]);
    all.collect::<Result<(), _>>().map_err(|why| {
        let text = format!("m{machine}'s backup of entry {place} {why}");
        Violation::new("backups hold what the log says", text)
    })
}

/// Checks all but who the members are.
fn state(model: &Model, place: u64, stores: &Stores) -> [Result<(), Differs>; 5] {
    [
        keys(model, place, stores),
        hashes(model, place, stores),
        leases(model, place, stores).map_err(Differs::Wrong),
        users(model, place, stores).map_err(Differs::Wrong),
        alarms(model, place, stores).map_err(Differs::Wrong),
    ]
}

fn keys(model: &Model, place: u64, stores: &Stores) -> Result<(), Differs> {
    let reader = stores.kv.reader();
    let (revision, compact) = (model.revision_at(place), model.compact_at(place));
    let is = (reader.current_revision(), reader.compact_revision());
    if is != (revision, compact) {
        let text = format!("is at revision and compact revision {is:?}, not {revision}, {compact}");
        return Err(Differs::Wrong(text));
    }
    let oldest = compact.max(1);
    let steps = (1..=OLD_REVISIONS).map(|n| oldest + (revision - oldest) * n / OLD_REVISIONS);
    for at in steps.chain([oldest]) {
        let everything = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            revision: at,
            ..RangeRequest::default()
        };
        let got = reader.range(&everything).map_err(Differs::of)?;
        let got = range_answer(&got)?;
        let expected = model.range(place, &everything);
        if expected.as_ref() != Ok(&got) {
            let text = format!("holds {got:?} at revision {at}, not {expected:?}");
            return Err(Differs::Wrong(text));
        }
    }
    Ok(())
}

fn hashes(model: &Model, place: u64, stores: &Stores) -> Result<(), Differs> {
    let reader = stores.kv.reader();
    let got = reader.hash_kv(0).map_err(Differs::of)?;
    let expected = model.hash(model.revision_at(place), got.compact_revision);
    if expected.is_some_and(|hash| hash != got.hash) {
        let text = format!("hashes to {got:?}, not {expected:?}");
        return Err(Differs::Wrong(text));
    }
    Ok(())
}

fn leases(model: &Model, place: u64, stores: &Stores) -> Result<(), String> {
    let lessor = &stores.lessor;
    let mut ids: Vec<i64> = lessor.leases().iter().map(|id| id.0).collect();
    ids.sort_unstable();
    let expected = model.leases().all_at(place);
    if ids != expected {
        return Err(format!("has leases {ids:?}, not {expected:?}"));
    }
    for id in ids {
        let keys = lessor.keys(LeaseId(id)).unwrap_or_default();
        let expected = model.keys_of_lease(id, place);
        if keys != expected {
            return Err(format!("has keys {keys:?} on lease {id}, not {expected:?}"));
        }
        let granted = lessor.time_to_live(LeaseId(id), 0).map(|t| t.granted_s);
        let expected = model.leases().at(id, place).map(|l| l.ttl_s);
        if granted != expected {
            return Err(format!("has lease {id} of {granted:?} s, not {expected:?}"));
        }
    }
    Ok(())
}

fn users(model: &Model, place: u64, stores: &Stores) -> Result<(), String> {
    let (store, expected) = (&stores.auth, model.auth_at(place));
    let is = (store.is_enabled(), store.revision());
    let must = (expected.is_enabled(), expected.revision());
    if is != must {
        return Err(format!("has authentication {is:?}, not {must:?}"));
    }
    let (users, roles) = (store.user_list(), store.role_list());
    if !users.iter().eq(expected.users()) || !roles.iter().eq(expected.roles()) {
        return Err(format!("has users {users:?} and roles {roles:?}"));
    }
    for user in users {
        let roles = store.user_get(&user).map_err(|e| e.to_string())?;
        if Some(&roles) != expected.roles_of(&user).as_ref() {
            return Err(format!("gives {user} the roles {roles:?}"));
        }
    }
    for role in roles {
        let permissions = store.role_get(&role).map_err(|e| e.to_string())?;
        if Some(&permissions) != expected.permissions_of(&role).as_ref() {
            return Err(format!("gives role {role} the permissions {permissions:?}"));
        }
    }
    Ok(())
}

fn cluster(model: &Model, place: u64, member: &Member) -> Result<(), String> {
    let (is, must) = (&member.stores().cluster, model.cluster_at(place));
    let members: Vec<Peer> = is.members().map(peer).collect();
    if members != must.members() {
        return Err(format!(
            "knows the members {members:?}, not {:?}",
            must.members()
        ));
    }
    let mut removed: Vec<u64> = is.removed().collect();
    removed.sort_unstable();
    if !removed.iter().copied().eq(must.removed()) {
        let must: Vec<u64> = must.removed().collect();
        return Err(format!(
            "knows the members {removed:?} as removed, not {must:?}"
        ));
    }
    let (version, downgrade) = (is.version(), is.downgrade_target());
    if version != must.version() || downgrade.as_deref() != must.downgrade() {
        return Err(format!(
            "is of version {version} on its way to {downgrade:?}"
        ));
    }
    Ok(())
}

fn alarms(model: &Model, place: u64, stores: &Stores) -> Result<(), String> {
    let alarms = stores.alarms.list(AlarmType::None.into());
    let alarms: Vec<_> = alarms.iter().map(|a| (a.member_id, a.alarm)).collect();
    if !alarms.iter().eq(model.alarms_at(place).iter()) {
        return Err(format!("has the alarms {alarms:?}"));
    }
    Ok(())
}

fn peer(member: &ClusterMember) -> Peer {
    Peer {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

#[cfg(test)]
mod tests {
    use quorate_mvcc::Error;

    use super::*;

    #[test]
    fn only_who_cannot_read_is_forgiven() {
        let unreadable = Differs::of(Error::Poisoned);
        assert!(unreadable.is_forgiven(true));
        assert!(!unreadable.is_forgiven(false));
        let refused = Differs::of(Error::Compacted);
        assert!(!refused.is_forgiven(true), "{refused}");
        assert!(!Differs::from("gives 1, not 2".to_owned()).is_forgiven(true));
    }
}
