//! Every shape of request against every shape of permission, with changes and restarts in between, against a model that
//! spells out keys one by one.
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use quorate_auth::{Error, Identity, Operation, Stage};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;

use crate::{READ, READWRITE, WRITE, World};

/// Keys that stand for all: between two neighbours no range of these tests begins or ends, apart from the one right behind
/// a single key, which is here too.
fn universe() -> Vec<Vec<u8>> {
    let behind = |key: &[u8]| [key.to_vec(), [key, &[0]].concat(), [key, b"x"].concat()];
    let mut all: Vec<Vec<u8>> = KEYS.iter().flat_map(|key| behind(key)).collect();
    all.push(vec![0xff; 3]);
    all
}

/// Where ranges begin and end.
const KEYS: [&[u8]; 6] = [b"\0", b"a", b"b", b"b\0", b"c", b"d"];

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(KEYS.as_slice()).prop_map(<[u8]>::to_vec)
}

fn span() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let end = prop_oneof![2 => Just(vec![]), 1 => Just(vec![0]), 4 => key()];
    (key(), end)
}

fn keys_in(key: &[u8], end: &[u8]) -> Vec<Vec<u8>> {
    let within = |k: &Vec<u8>| match end {
        [] => k == key,
        [0] => &k[..] >= key,
        end => &k[..] >= key && &k[..] < end,
    };
    let found: Vec<Vec<u8>> = universe().into_iter().filter(within).collect();
    // An empty range is judged by its key.
    if found.is_empty() {
        vec![key.to_vec()]
    } else {
        found
    }
}

fn keys_of_lease(id: LeaseId) -> Vec<Bytes> {
    let keys: &[&'static str] = match id.0 {
        1 => &["a"],
        2 => &["b", "c"],
        _ => &[],
    };
    keys.iter().map(|&k| Bytes::from(k)).collect()
}

const USERS: [&str; 3] = ["root", "u", "v"];
const ROLES: [&str; 3] = ["root", "r", "s"];

#[derive(Clone, Debug)]
enum Step {
    UserAdd(usize),
    UserDelete(usize),
    ChangePassword(usize),
    GrantRole(usize, usize),
    RevokeRole(usize, usize),
    RoleAdd(usize),
    RoleDelete(usize),
    Grant(usize, i32, (Vec<u8>, Vec<u8>)),
    Revoke(usize, (Vec<u8>, Vec<u8>)),
    Enable,
    Disable,
    Restart(bool),
    Ask(Who, Ask),
}

#[derive(Clone, Debug)]
enum Who {
    Nobody,
    Unknown,
    User(usize),
    Stale(usize),
}

#[derive(Clone, Debug)]
enum Ask {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    ReadTxn(pb::TxnRequest),
    Watch(pb::WatchCreateRequest),
    LeaseGrant,
    LeaseRevoke(i64),
    KeepAlive(i64),
    TimeToLive(i64, bool),
    Leases,
    Manage,
    UserGet(usize),
    RoleGet(usize),
    Compact,
}

fn range() -> impl Strategy<Value = pb::RangeRequest> {
    span().prop_map(|(key, end)| pb::RangeRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    })
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    (
        key(),
        prop_oneof![3 => Just(0), 2 => 1..5i64],
        any::<bool>(),
    )
        .prop_map(|(key, lease, prev_kv)| pb::PutRequest {
            key: key.into(),
            lease,
            prev_kv,
            ..Default::default()
        })
}

fn delete() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (span(), any::<bool>()).prop_map(|((key, end), prev_kv)| pb::DeleteRangeRequest {
        key: key.into(),
        range_end: end.into(),
        prev_kv,
    })
}

fn txn() -> impl Strategy<Value = pb::TxnRequest> {
    let leaf = prop_oneof![
        range().prop_map(Request::RequestRange),
        put().prop_map(Request::RequestPut),
        delete().prop_map(Request::RequestDeleteRange),
    ];
    let of = |op: BoxedStrategy<Request>| {
        let compare = span().prop_map(|(key, end)| pb::Compare {
            key: key.into(),
            range_end: end.into(),
            ..Default::default()
        });
        let op = prop::option::weighted(0.95, op)
            .prop_map(|request| pb::RequestOp { request })
            .boxed();
        let compares = prop::collection::vec(compare, 0..2);
        let branch = prop::collection::vec(op, 0..3).boxed();
        (compares, branch.clone(), branch).prop_map(|(compare, success, failure)| pb::TxnRequest {
            compare,
            success,
            failure,
        })
    };
    let nested = leaf.clone().boxed().prop_recursive(3, 12, 3, move |inner| {
        prop_oneof![2 => leaf.clone(), 1 => of(inner.boxed()).prop_map(Request::RequestTxn)]
    });
    of(nested.boxed())
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        6 => range().prop_map(Ask::Range),
        6 => put().prop_map(Ask::Put),
        6 => delete().prop_map(Ask::Delete),
        8 => txn().prop_map(Ask::Txn),
        2 => txn().prop_map(Ask::ReadTxn),
        3 => span().prop_map(|(key, end)| Ask::Watch(pb::WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            ..Default::default()
        })),
        1 => Just(Ask::LeaseGrant),
        2 => (1..5i64).prop_map(Ask::LeaseRevoke),
        2 => (1..5i64).prop_map(Ask::KeepAlive),
        2 => (1..5i64, any::<bool>()).prop_map(|(id, keys)| Ask::TimeToLive(id, keys)),
        1 => Just(Ask::Leases),
        1 => Just(Ask::Manage),
        1 => (0..3usize).prop_map(Ask::UserGet),
        1 => (0..3usize).prop_map(Ask::RoleGet),
        1 => Just(Ask::Compact),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![
        1 => Just(Who::Nobody),
        1 => Just(Who::Unknown),
        12 => (0..3usize).prop_map(Who::User),
        1 => (0..3usize).prop_map(Who::Stale),
    ];
    let kind = prop::sample::select(vec![READ, WRITE, READWRITE]);
    prop_oneof![
        1 => (0..3usize).prop_map(Step::UserAdd),
        1 => (0..3usize).prop_map(Step::UserDelete),
        1 => (0..3usize).prop_map(Step::ChangePassword),
        3 => (0..3usize, 0..3usize).prop_map(|(u, r)| Step::GrantRole(u, r)),
        2 => (0..3usize, 0..3usize).prop_map(|(u, r)| Step::RevokeRole(u, r)),
        1 => (0..3usize).prop_map(Step::RoleAdd),
        1 => (0..3usize).prop_map(Step::RoleDelete),
        12 => (0..3usize, kind, span()).prop_map(|(r, kind, span)| Step::Grant(r, kind, span)),
        4 => (0..3usize, span()).prop_map(|(r, span)| Step::Revoke(r, span)),
        2 => Just(Step::Enable),
        1 => Just(Step::Disable),
        2 => any::<bool>().prop_map(Step::Restart),
        40 => (who, ask()).prop_map(|(who, ask)| Step::Ask(who, ask)),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Write,
}

/// What a request needs, spelt out.
enum Need {
    Key(Kind, Vec<u8>),
    /// All these keys, unless the caller is an administrator.
    Lease(Kind, Vec<Bytes>),
    Admin,
    User,
    /// An administrator, or a caller of whom this holds.
    AdminOr(bool),
}

/// Key, `range_end` and kind of a permission.
type Granted = (Vec<u8>, Vec<u8>, i32);

#[derive(Default)]
struct Model {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, BTreeSet<String>>,
    /// Permissions in the order in which they are shown.
    roles: BTreeMap<String, Vec<Granted>>,
}

type Verdict = Result<(), String>;

fn refuse(error: &Error) -> Verdict {
    Err(error.to_string())
}

impl Model {
    fn is_admin(&self, who: &Identity) -> Verdict {
        if who.username.is_empty() {
            return refuse(&Error::UserEmpty);
        }
        match self.users.get(&who.username) {
            None => refuse(&Error::UserNotFound),
            Some(roles) if roles.contains("root") => Ok(()),
            Some(_) => refuse(&Error::PermissionDenied),
        }
    }

    fn may(&self, who: &Identity, kind: Kind, key: &[u8]) -> Verdict {
        if who.revision == 0 {
            return refuse(&Error::UserEmpty);
        }
        if who.revision < self.revision {
            return refuse(&Error::AuthOldRevision);
        }
        let roles = self.users.get(&who.username).cloned().unwrap_or_default();
        let kinds = if kind == Kind::Read {
            [READ, READWRITE]
        } else {
            [WRITE, READWRITE]
        };
        let grants = roles.iter().filter_map(|r| self.roles.get(r)).flatten();
        let allowed = grants
            .filter(|p| kinds.contains(&p.2))
            .any(|p| match &p.1[..] {
                [] => key == p.0,
                [0] => key >= &p.0[..],
                end => key >= &p.0[..] && key < end,
            });
        if roles.contains("root") || allowed {
            Ok(())
        } else {
            refuse(&Error::PermissionDenied)
        }
    }

    fn decide(&self, who: &Identity, needs: &[Need]) -> Verdict {
        if !self.enabled {
            return Ok(());
        }
        for need in needs {
            match need {
                Need::Key(kind, key) => self.may(who, *kind, key)?,
                Need::Lease(..) if self.is_admin(who).is_ok() => {}
                Need::Lease(kind, keys) => {
                    keys.iter().try_for_each(|key| self.may(who, *kind, key))?
                }
                Need::Admin => self.is_admin(who)?,
                Need::User if who.revision == 0 => return refuse(&Error::UserEmpty),
                Need::User | Need::AdminOr(true) => {}
                Need::AdminOr(false) => self.is_admin(who)?,
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of change")]
    fn change(&mut self, step: &Step) -> Verdict {
        let name = |list: [&str; 3], n: usize| list[n].to_owned();
        match step {
            Step::UserAdd(u) => {
                if self.users.contains_key(USERS[*u]) {
                    return refuse(&Error::UserAlreadyExist);
                }
                self.users.insert(name(USERS, *u), BTreeSet::new());
            }
            Step::UserDelete(0) if self.enabled => return refuse(&Error::InvalidAuthMgmt),
            Step::UserDelete(u) => {
                self.users
                    .remove(USERS[*u])
                    .ok_or(Error::UserNotFound.to_string())?;
            }
            Step::ChangePassword(u) => {
                self.users
                    .get(USERS[*u])
                    .ok_or(Error::UserNotFound.to_string())?;
            }
            Step::GrantRole(u, r) => {
                let user = self
                    .users
                    .get_mut(USERS[*u])
                    .ok_or(Error::UserNotFound.to_string())?;
                if *r != 0 && !self.roles.contains_key(ROLES[*r]) {
                    return refuse(&Error::RoleNotFound);
                }
                if !user.insert(name(ROLES, *r)) {
                    return Ok(());
                }
            }
            Step::RevokeRole(0, 0) if self.enabled => return refuse(&Error::InvalidAuthMgmt),
            Step::RevokeRole(u, r) => {
                let user = self
                    .users
                    .get_mut(USERS[*u])
                    .ok_or(Error::UserNotFound.to_string())?;
                if !user.remove(ROLES[*r]) {
                    return refuse(&Error::RoleNotGranted);
                }
            }
            Step::RoleAdd(r) => {
                if self.roles.contains_key(ROLES[*r]) {
                    return refuse(&Error::RoleAlreadyExist);
                }
                self.roles.insert(name(ROLES, *r), Vec::new());
            }
            Step::RoleDelete(0) if self.enabled => return refuse(&Error::InvalidAuthMgmt),
            Step::RoleDelete(r) => {
                self.roles
                    .remove(ROLES[*r])
                    .ok_or(Error::RoleNotFound.to_string())?;
                self.users.values_mut().for_each(|roles| {
                    roles.remove(ROLES[*r]);
                });
            }
            Step::Grant(r, kind, (key, end)) => {
                if !end.is_empty() && end[..] != [0] && end <= key {
                    return refuse(&Error::InvalidAuthMgmt);
                }
                let role = self
                    .roles
                    .get_mut(ROLES[*r])
                    .ok_or(Error::RoleNotFound.to_string())?;
                match role.iter_mut().find(|p| p.0 == *key) {
                    Some(first) if first.1 == *end => first.2 = *kind,
                    _ => {
                        role.push((key.clone(), end.clone(), *kind));
                        role.sort_by(|a, b| a.0.cmp(&b.0));
                    }
                }
            }
            Step::Revoke(r, (key, end)) => {
                let role = self
                    .roles
                    .get_mut(ROLES[*r])
                    .ok_or(Error::RoleNotFound.to_string())?;
                let before = role.len();
                role.retain(|p| (&p.0, &p.1) != (key, end));
                if role.len() == before {
                    return refuse(&Error::PermissionNotGranted);
                }
            }
            Step::Enable => {
                let roles = self.users.get("root");
                if !self.enabled && roles.is_none() {
                    return refuse(&Error::RootUserNotExist);
                }
                if !self.enabled && roles.is_some_and(|roles| !roles.contains("root")) {
                    return refuse(&Error::RootRoleNotExist);
                }
                self.enabled = true;
                return Ok(());
            }
            Step::Disable if !self.enabled => return Ok(()),
            Step::Disable => self.enabled = false,
            Step::Restart(_) | Step::Ask(..) => return Ok(()),
        }
        self.revision += 1;
        Ok(())
    }
}

fn needs_of_span(kind: Kind, key: &[u8], end: &[u8], needs: &mut Vec<Need>) {
    needs.extend(
        keys_in(key, end)
            .into_iter()
            .map(|key| Need::Key(kind, key)),
    );
}

fn needs_of_put(put: &pb::PutRequest, needs: &mut Vec<Need>) {
    needs.push(Need::Key(Kind::Write, put.key.to_vec()));
    needs.push(Need::Lease(Kind::Write, keys_of_lease(LeaseId(put.lease))));
    if put.prev_kv {
        needs.push(Need::Key(Kind::Read, put.key.to_vec()));
    }
}

fn needs_of_delete(delete: &pb::DeleteRangeRequest, needs: &mut Vec<Need>) {
    needs_of_span(Kind::Write, &delete.key, &delete.range_end, needs);
    if delete.prev_kv {
        needs_of_span(Kind::Read, &delete.key, &delete.range_end, needs);
    }
}

fn needs_of_txn(txn: &pb::TxnRequest, needs: &mut Vec<Need>) {
    for compare in &txn.compare {
        needs_of_span(Kind::Read, &compare.key, &compare.range_end, needs);
    }
    for op in [&txn.success, &txn.failure].into_iter().flatten() {
        match &op.request {
            Some(Request::RequestRange(r)) => {
                needs_of_span(Kind::Read, &r.key, &r.range_end, needs)
            }
            Some(Request::RequestPut(r)) => needs_of_put(r, needs),
            Some(Request::RequestDeleteRange(r)) => needs_of_delete(r, needs),
            Some(Request::RequestTxn(r)) => needs_of_txn(r, needs),
            None => {}
        }
    }
}

/// What the request is, where it is judged, and what it needs there.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of request")]
fn plan<'a>(model: &Model, who: &Identity, ask: &'a Ask) -> (Stage, Operation<'a>, Vec<Need>) {
    const ALL: &[LeaseId] = &[LeaseId(1), LeaseId(2), LeaseId(3)];
    let mut needs = Vec::new();
    let (stage, operation) = match ask {
        Ask::Range(r) => {
            needs_of_span(Kind::Read, &r.key, &r.range_end, &mut needs);
            (Stage::Door, Operation::Range(r))
        }
        Ask::Put(r) => {
            needs_of_put(r, &mut needs);
            (Stage::Apply, Operation::Put(r))
        }
        Ask::Delete(r) => {
            needs_of_delete(r, &mut needs);
            (Stage::Apply, Operation::DeleteRange(r))
        }
        Ask::Txn(r) => {
            needs_of_txn(r, &mut needs);
            (Stage::Apply, Operation::Txn(r))
        }
        Ask::ReadTxn(r) => {
            needs_of_txn(r, &mut needs);
            (Stage::Door, Operation::ReadOnlyTxn(r))
        }
        Ask::Watch(r) => {
            needs_of_span(Kind::Read, &r.key, &r.range_end, &mut needs);
            (Stage::Door, Operation::Watch(r))
        }
        Ask::LeaseGrant => {
            needs.push(Need::User);
            (Stage::Door, Operation::LeaseGrant)
        }
        Ask::LeaseRevoke(id) => {
            needs.push(Need::Lease(Kind::Write, keys_of_lease(LeaseId(*id))));
            (Stage::Apply, Operation::LeaseRevoke(LeaseId(*id)))
        }
        Ask::KeepAlive(id) => {
            needs.extend([
                Need::User,
                Need::Lease(Kind::Write, keys_of_lease(LeaseId(*id))),
            ]);
            (Stage::Door, Operation::LeaseKeepAlive(LeaseId(*id)))
        }
        Ask::TimeToLive(id, keys) => {
            needs.push(Need::User);
            if *keys {
                needs.push(Need::Lease(Kind::Read, keys_of_lease(LeaseId(*id))));
            }
            (
                Stage::Door,
                Operation::LeaseTimeToLive {
                    id: LeaseId(*id),
                    keys: *keys,
                },
            )
        }
        Ask::Leases => {
            needs.push(Need::User);
            needs.extend(
                ALL.iter()
                    .map(|&id| Need::Lease(Kind::Read, keys_of_lease(id))),
            );
            (Stage::Door, Operation::LeaseLeases(ALL))
        }
        Ask::Manage => {
            needs.push(Need::Admin);
            (Stage::Apply, Operation::AuthManagement)
        }
        Ask::UserGet(u) => {
            needs.push(Need::AdminOr(who.username == USERS[*u]));
            (Stage::Apply, Operation::UserGet(USERS[*u]))
        }
        Ask::RoleGet(r) => {
            let has = model
                .users
                .get(&who.username)
                .is_some_and(|roles| roles.contains(ROLES[*r]));
            needs.push(Need::AdminOr(has));
            (Stage::Apply, Operation::RoleGet(ROLES[*r]))
        }
        Ask::Compact => {
            needs.push(Need::Admin);
            (Stage::Door, Operation::Compact)
        }
    };
    (stage, operation, needs)
}

fn change(world: &mut World, step: &Step) -> Result<(), Error> {
    match step {
        Step::UserAdd(u) => world.user_add_with(USERS[*u], String::new(), None),
        Step::UserDelete(u) => world.user_delete(USERS[*u]),
        Step::ChangePassword(u) => world.user_change_password(USERS[*u], String::new()),
        Step::GrantRole(u, r) => world.user_grant_role(USERS[*u], ROLES[*r]),
        Step::RevokeRole(u, r) => world.user_revoke_role(USERS[*u], ROLES[*r]),
        Step::RoleAdd(r) => world.role_add(ROLES[*r]),
        Step::RoleDelete(r) => world.role_delete(ROLES[*r]),
        Step::Grant(r, kind, (key, end)) => world.grant(ROLES[*r], *kind, key, end),
        Step::Revoke(r, (key, end)) => world.revoke(ROLES[*r], key, end),
        Step::Enable => world.enable(),
        Step::Disable => {
            world.disable();
            Ok(())
        }
        Step::Restart(reopen) => {
            let reader = world.reader();
            world.restart(*reopen);
            if !reopen {
                world.auth.adopt(&reader);
            }
            Ok(())
        }
        Step::Ask(..) => Ok(()),
    }
}

fn compare(world: &World, model: &Model) -> Result<(), TestCaseError> {
    let auth = &world.auth;
    prop_assert_eq!(
        (auth.is_enabled(), auth.revision()),
        (model.enabled, model.revision)
    );
    let reader = world.reader();
    prop_assert_eq!(
        (reader.is_enabled(), reader.revision()),
        (model.enabled, model.revision)
    );
    prop_assert_eq!(
        auth.user_list(),
        model.users.keys().cloned().collect::<Vec<_>>()
    );
    prop_assert_eq!(
        auth.role_list(),
        model.roles.keys().cloned().collect::<Vec<_>>()
    );
    for (name, roles) in &model.users {
        prop_assert_eq!(
            auth.user_get(name).unwrap(),
            roles.iter().cloned().collect::<Vec<_>>()
        );
    }
    for (name, permissions) in model.roles.iter().filter(|(name, _)| *name != "root") {
        let shown = auth.role_get(name).unwrap();
        let shown: Vec<_> = shown
            .into_iter()
            .map(|p| (p.key.to_vec(), p.range_end.to_vec(), p.perm_type))
            .collect();
        prop_assert_eq!(&shown, permissions);
    }
    Ok(())
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let mut model = Model {
        revision: 1,
        ..Model::default()
    };
    // A start in which something may be asked.
    let start = [
        Step::UserAdd(0),
        Step::UserAdd(1),
        Step::UserAdd(2),
        Step::RoleAdd(1),
        Step::RoleAdd(2),
        Step::GrantRole(0, 0),
        Step::GrantRole(1, 1),
        Step::GrantRole(2, 2),
        Step::Enable,
    ];
    for step in start.iter().chain(steps) {
        let Step::Ask(who, ask) = step else {
            prop_assert_eq!(
                change(&mut world, step).map_err(|e| e.to_string()),
                model.change(step),
                "{:?}",
                step
            );
            compare(&world, &model)?;
            continue;
        };
        let (name, revision) = match who {
            Who::Nobody => ("", 0),
            Who::Unknown => ("x", model.revision),
            Who::User(u) => (USERS[*u], model.revision),
            Who::Stale(u) => (USERS[*u], model.revision - 1),
        };
        let who = Identity {
            username: name.into(),
            revision,
        };
        let (stage, operation, needs) = plan(&model, &who, ask);
        let want = model.decide(&who, &needs);
        let got = world
            .auth
            .gate(&who, stage, &operation, keys_of_lease)
            .map_err(|e| e.to_string());
        prop_assert_eq!(
            &got,
            &want,
            "{:?} asks {:?}; roles {:?}",
            &who,
            ask,
            &model.roles
        );
        let got = world
            .reader()
            .gate(&who, stage, &operation, keys_of_lease)
            .map_err(|e| e.to_string());
        prop_assert_eq!(got, want, "by the reader");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gate_says_what_the_model_says(steps in prop::collection::vec(step(), 1..80)) {
        run(&steps)?;
    }
}
