//! Applying committed entries, in log order, to everything that is replicated.
use quorate_auth::{AuthStore, Identity, Stage};
use quorate_backend::{ApplyTxn, Backend};
use quorate_lease::Lessor;
use quorate_mvcc::{Changes, CompactionJob, Store};
use quorate_proto::LeaseId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::AlarmType;

use crate::alarms::Alarms;
use crate::cluster::Cluster;
use crate::quota::{self, Quota};
use crate::{Applied, AuthAnswer, Error, Request};

/// Everything replicated, as restored from the backend; what [`crate::Member`] is started with.
pub struct Stores {
    /// The backend under all of them.
    pub backend: Backend,
    /// Keys and values.
    pub kv: Store,
    /// Leases.
    pub lessor: Lessor,
    /// Users and roles.
    pub auth: AuthStore,
    /// Alarms.
    pub alarms: Alarms,
    /// Members and versions.
    pub cluster: Cluster,
}

/// Where and when an entry is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) index: u64,
    pub(crate) now_ms: u64,
    pub(crate) persist_checkpoints: bool,
}

/// What applying an entry leaves for the member to do.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) compaction: Option<CompactionJob>,
    pub(crate) revoked: Vec<LeaseId>,
    /// Keys that went with their leases.
    pub(crate) revoked_keys: u64,
    pub(crate) cluster_changed: bool,
    pub(crate) alarms_changed: bool,
}

impl Stores {
    /// Applies one request. The order of checks is that of etcd's chain of appliers: corrupt, capped, auth, quota, backend.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/apply/uber_applier.go.
    pub(crate) fn apply(
        &mut self,
        txn: &mut ApplyTxn,
        ctx: Context,
        identity: &Identity,
        request: &Request,
        quota: &Quota,
        effects: &mut Effects,
    ) -> Result<Applied, Error> {
        match request {
            Request::ClusterVersionSet(r) => {
                self.cluster.apply_version(txn, &r.ver);
                effects.cluster_changed = true;
                return Ok(Applied::Done);
            }
            Request::ClusterMemberAttrSet(r) => {
                self.cluster.apply_attributes(txn, r);
                effects.cluster_changed = true;
                return Ok(Applied::Done);
            }
            Request::DowngradeInfoSet(r) => {
                self.cluster.apply_downgrade(txn, r.enabled, &r.ver);
                effects.cluster_changed = true;
                return Ok(Applied::Done);
            }
            _ => {}
        }
        self.check_alarms(request)?;
        self.check_auth(identity, request)?;
        let cost = quota::cost(request);
        let fits = cost == 0 || quota.has_room(cost);
        let applied = self.apply_to_backend(txn, ctx, request, effects)?;
        if fits {
            Ok(applied)
        } else {
            Err(Error::NoSpace)
        }
    }

    fn check_alarms(&self, request: &Request) -> Result<(), Error> {
        let writes = matches!(
            request,
            Request::Put(_)
                | Request::DeleteRange(_)
                | Request::Txn(_)
                | Request::Compaction(_)
                | Request::LeaseGrant(_)
                | Request::LeaseRevoke(_)
        );
        if writes && self.alarms.is_active(AlarmType::Corrupt) {
            return Err(Error::Corrupt);
        }
        if quota::cost(request) > 0 && self.alarms.is_active(AlarmType::Nospace) {
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    fn check_auth(&self, identity: &Identity, request: &Request) -> Result<(), Error> {
        let keys_of = |id| self.lessor.keys(id).unwrap_or_default();
        Ok(self
            .auth
            .gate(identity, Stage::Apply, &request.operation(), keys_of)?)
    }

    fn apply_to_backend(
        &mut self,
        txn: &mut ApplyTxn,
        ctx: Context,
        request: &Request,
        effects: &mut Effects,
    ) -> Result<Applied, Error> {
        let Self { kv, lessor, .. } = self;
        Ok(match request {
            Request::Put(r) => {
                let result = kv.put(txn, r, |id| lessor.exists(LeaseId(id)))?;
                attach(lessor, &result.changes);
                Applied::Put(result)
            }
            Request::DeleteRange(r) => {
                let result = kv.delete_range(txn, r)?;
                attach(lessor, &result.changes);
                Applied::DeleteRange(result)
            }
            Request::Txn(r) => {
                let result = kv.txn(txn, r, |id| lessor.exists(LeaseId(id)))?;
                attach(lessor, &result.changes);
                Applied::Txn(result)
            }
            Request::Compaction(r) => {
                effects.compaction = Some(kv.compact(txn, r.revision)?);
                Applied::Compaction {
                    revision: kv.current_revision(),
                }
            }
            Request::LeaseGrant(r) => {
                let granted = lessor.grant(txn, LeaseId(r.id), r.ttl, ctx.now_ms)?;
                Applied::LeaseGrant {
                    id: granted.id,
                    ttl_s: granted.ttl_s,
                }
            }
            Request::LeaseRevoke(r) => self.revoke(txn, LeaseId(r.id), effects)?,
            Request::LeaseCheckpoint(r) => {
                for checkpoint in &r.checkpoints {
                    let id = LeaseId(checkpoint.id);
                    lessor.checkpoint(txn, id, checkpoint.remaining_ttl, ctx.persist_checkpoints);
                }
                Applied::Done
            }
            Request::Alarm(r) => {
                effects.alarms_changed = true;
                Applied::Alarm(self.alarms.apply(txn, r))
            }
            _ => Applied::Auth {
                answer: self.apply_auth(txn, ctx, request)?,
                revision: self.kv.current_revision(),
            },
        })
    }

    fn revoke(
        &mut self,
        txn: &mut ApplyTxn,
        id: LeaseId,
        effects: &mut Effects,
    ) -> Result<Applied, Error> {
        let keys = self.lessor.keys(id).ok_or(quorate_lease::Error::NotFound)?;
        let changes = self.kv.delete_keys(txn, &keys)?;
        self.lessor.revoke(txn, id)?;
        attach(&mut self.lessor, &changes);
        effects.revoked.push(id);
        effects.revoked_keys += keys.len() as u64;
        Ok(Applied::LeaseRevoke {
            revision: self.kv.current_revision(),
        })
    }

    fn apply_auth(
        &mut self,
        txn: &mut ApplyTxn,
        ctx: Context,
        request: &Request,
    ) -> Result<AuthAnswer, Error> {
        let auth = &mut self.auth;
        match request {
            Request::AuthEnable(_) => auth.enable(txn)?,
            Request::AuthDisable(_) => auth.disable(txn),
            Request::AuthStatus(_) => {
                return Ok(AuthAnswer::Status {
                    enabled: auth.is_enabled(),
                    revision: auth.revision(),
                });
            }
            Request::Authenticate(r) => {
                // Members of both kinds must give the same name: etcd takes the consistent index, which is that of the entry
                // before. Source: etcd v3.7.1 server/etcdserver/apply/backend.go Authenticate.
                let (letters, index) = (&r.simple_token, ctx.index - 1);
                let token = auth.authenticate(&r.name, letters, index, ctx.now_ms)?;
                return Ok(AuthAnswer::Token(token));
            }
            Request::AuthUserAdd(r) => auth.user_add(txn, r)?,
            Request::AuthUserDelete(r) => auth.user_delete(txn, r)?,
            Request::AuthUserGet(r) => return Ok(AuthAnswer::Names(auth.user_get(&r.name)?)),
            Request::AuthUserChangePassword(r) => auth.user_change_password(txn, r)?,
            Request::AuthUserGrantRole(r) => auth.user_grant_role(txn, r)?,
            Request::AuthUserRevokeRole(r) => auth.user_revoke_role(txn, r)?,
            Request::AuthUserList(_) => return Ok(AuthAnswer::Names(auth.user_list())),
            Request::AuthRoleList(_) => return Ok(AuthAnswer::Names(auth.role_list())),
            Request::AuthRoleAdd(r) => auth.role_add(txn, r)?,
            Request::AuthRoleDelete(r) => auth.role_delete(txn, r)?,
            Request::AuthRoleGet(r) => return Ok(AuthAnswer::Permissions(auth.role_get(&r.role)?)),
            Request::AuthRoleGrantPermission(r) => auth.role_grant_permission(txn, r)?,
            Request::AuthRoleRevokePermission(r) => auth.role_revoke_permission(txn, r)?,
            _ => unreachable!("every other request is handled before"),
        }
        Ok(AuthAnswer::Done)
    }

    /// Shows readers and watchers everything applied up to now. Called after the batch's transaction was committed.
    pub(crate) fn publish(&mut self) {
        self.auth.publish();
        self.kv.publish();
    }

    /// Returns the alarms as clients see them.
    pub(crate) fn alarm_list(&self) -> Vec<pb::AlarmMember> {
        self.alarms.list(AlarmType::None as i32)
    }
}

/// Tells the lessor which keys moved between leases.
fn attach(lessor: &mut Lessor, changes: &Changes) {
    for (key, lease) in &changes.attached {
        lessor.attach(key.clone(), LeaseId(*lease));
    }
    for key in &changes.deleted {
        lessor.detach(key);
    }
}
